"""Lightning payments: what is asked of them, and where money can be sent over it.

The payments themselves are actions (`send.machine`, `receive.machine`).
Here is what surrounds them: `service` is what others call, `sends` and `receives` start and look up payments,
`invoices` and `lnurl` get an invoice from a destination that is none.
"""
