"""Being paid over Lightning.

    states        what a payment can be, how the states follow each other, and how they are stored
    machine       the steps: the grant, the decision, the claim; the way out on the chain
    grant         taking what the server grants, after every check
    htlcs         the HTLC VTXOs as they stand, here and on the chain
    writes        what is stored together with a state
    service       makes invoices, finds receives, cancels them, drives those under way

Source: protocol sheet 05 §5.
"""
