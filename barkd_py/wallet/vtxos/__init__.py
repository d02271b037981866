"""What flows do with VTXOs: choose them, verify them, register them with the server.

selection     pure: which to spend, which to refresh
inputs        inputs of a payment, out of however many VTXOs
importing     VTXOs that somebody else kept
anchors       what they hang off, proven on the chain
registration  the server's copies
"""
