"""Emergency exits: from a VTXO to coins on the chain, without the server.

states      what an exit can be                     errors    why it does not go on
machine     which state follows which (pure)        observe   the chain, as the machine sees it
driver      observe, decide, store, act             claim     spending what has matured
estimate    what it would cost                      service   the calls of users and of the daemon
"""
