"""Emergency exits: from a VTXO to coins on the chain, without the server.

What decides, pure:
states      what an exit can be                      machine     which state follows which
estimate    what it would cost                       claim       spending what has matured
errors      why it does not go on                    picture     the machine's table, drawn
rivals      who else may take outputs on the way     worth       which exits are worth their cost

What acts:
service     what others may ask for                  starts      which VTXOs may start, and how
driver      a run: observe, decide, store, pay       observe     the chain, as the machine sees it
children    the children that pay                    forced      VTXOs that others force to exit
claiming    claims, on their way                     aftercare   claims, until they are deep enough
homeward    claims to the on-chain wallet            estimating  the facts for `estimate`

What is stored: rows, payloads; and shown: packages.
"""
