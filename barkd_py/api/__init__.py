"""The REST API: authentication, routes, requests read, answers rendered, errors as statuses.

`app` puts it together, `server` serves it. A request goes through `routers` (one per tag), is read through
`schemas`, answered through `render`; `errors` alone knows which error is which status.
"""
