"""Emergency exits: from a VTXO to coins on the chain, without the server.

What decides, pure:
states      what an exit can be                      machine     which state follows which
errors      why it does not go on                    picture     the machine's table, drawn

What acts:
service     what others may ask for                  starts      which VTXOs may start, and how
driver      a run: observe, decide, store, pay       observe     the chain, as the machine sees it
children    the children that pay                    claim_tx    the transaction that takes what has matured
claims/     on their way (sending), until they are deep enough (aftercare), and without being told (homeward)
costs/      what exits would cost (formula; its facts: estimates), and which are worth it (worth)
forced/     VTXOs that others force to exit (watch), and who else may take what is on the way (rivals)

What is stored: rows, payloads; and shown: packages.
"""
