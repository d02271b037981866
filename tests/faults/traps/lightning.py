"""Sheet 05 §11: Lightning, and fees."""

from tests.faults.register import Line

_SENDING = "wallet/lightning/test_send.py::"
_RECEIVE = "wallet/lightning/test_receive.py::"
_STATES = "wallet/lightning/test_send_states.py::"
_FEES = "ark/test_fees.py::"
_REQUEST = "wallet/payments/test_request.py::"

TRAPS = {
    "05 §11.1": Line(
        "two messages number their parts differently",
        ("server_rpc/test_generated.py::test_numbers_of_fields_beside_the_holes",),
    ),
    "05 §11.2": Line(
        "change has the HTLC's key, a revocation another",
        (_SENDING + "test_the_htlcs_are_what_was_asked_for",),
    ),
    "05 §11.3": Line(
        "HTLCs hold the fee, which comes back with them",
        (
            _SENDING + "test_a_payment_is_made",
            _SENDING + "test_a_payment_that_failed_is_taken_back",
            _STATES + "test_the_outputs_are_the_htlc_and_the_change",
        ),
    ),
    "05 §11.4": Line(
        "payment hashes are shown as they are, ids reversed",
        ("bitcoin/test_bolt11.py::test_the_examples_are_read", "ark/test_vtxo.py::test_id_texts"),
    ),
    "05 §11.5": Line(
        "several HTLCs have one policy, and are paid with and given back together",
        (_SENDING + "test_several_inputs_and_no_change", _SENDING + "test_several_htlcs_come_back_together"),
    ),
    "05 §11.6": Line(
        "the HTLC's expiry is fixed; too low, the payment is over",
        (
            _SENDING + "test_a_refusal_of_the_htlcs_undoes_everything",
            _SENDING + "test_htlcs_that_were_cosigned_unheard_come_back_though_they_would_expire_too_soon",
        ),
    ),
    "05 §11.7": Line(
        "what is registered, and when",
        (
            "devnet/ark_server/lightning/test_send.py::test_payments_that_are_not_started",
            "wallet/flows/test_lightning_send.py::test_every_destination_is_paid",
            "wallet/flows/test_lightning_receive.py::test_it_can_be_spent_at_once",
        ),
    ),
    "05 §11.8": Line(
        "parts of a satoshi",
        (
            _SENDING + "test_a_sub_satoshi_invoice_is_rounded_up",
            "bitcoin/test_bolt11.py::test_pico_amounts_are_exact_and_round_up",
            "devnet/ark_server/lightning/test_receive.py::test_payment_in_parts_and_too_much",
        ),
    ),
    "05 §11.9": Line(
        "what is paid too much is the server's; more than twice is refused",
        (
            _SENDING + "test_twice_as_much_may_be_paid",
            "wallet/lightning/test_invoices.py::test_the_amount_of_a_payment",
            _SENDING + "test_what_is_refused_leaves_no_trace",
        ),
    ),
    "05 §11.10": Line(
        "nothing is revoked before it expires, though it is asked for earlier",
        (
            _SENDING + "test_a_payment_that_nobody_answers_comes_back_after_the_htlcs_expired",
            _SENDING + "test_a_late_success_counts_while_the_htlcs_are_stuck",
            _STATES + "test_htlcs_are_late_before_they_expire",
        ),
    ),
    "05 §11.11": Line(
        "a refused preparation is asked for again before it is given up; a failed one always",
        (
            _RECEIVE + "test_without_any_proof_it_is_given_up",
            _RECEIVE + "test_a_server_that_forgot_an_invoice_may_remember",
            "wallet/flows/test_lightning_lies.py::test_an_empty_pool_is_waited_for",
        ),
    ),
    "05 §11.12": Line(
        "claims take their inputs in the order of the ids", (_RECEIVE + "test_a_grant_may_come_in_pieces",)
    ),
    "05 §11.13": Line(
        "a grant's expiry is not that of another tip",
        (_RECEIVE + "test_blocks_between_grant_and_claim_are_no_harm",),
    ),
    "05 §11.14": Line(
        "a bracket begins at its threshold; below the first nothing is charged",
        (_FEES + "test_expiry_brackets_match_upstream", _FEES + "test_lightning_send_examples"),
    ),
    "05 §11.15": Line(
        "the least fee is of the whole, and of sends and boards alone",
        (
            _FEES + "test_lightning_send_fees_match_upstream",
            _FEES + "test_board_fees_match_upstream",
            _FEES + "test_refresh_fees_match_upstream",
            _FEES + "test_lightning_receive_fees_match_upstream",
        ),
    ),
    "05 §11.16": Line(
        "weight is rounded once",
        (
            _FEES + "test_offboard_weight_fee_counts_the_script_and_the_fixed_part",
            _FEES + "test_offboard_fees_match_upstream",
        ),
    ),
    "05 §11.17": Line(
        "a patience beyond 32 bits is the most that they hold",
        (_SENDING + "test_the_server_looks_for_a_route_as_long_as_32_bits_can_say",),
    ),
    "05 §11.18": Line(
        "one satoshi may be sent; no preimage is shown for what could not exit",
        (
            _SENDING + "test_dust_is_paid_with_isolated_outputs",
            "wallet/flows/test_lightning_send.py::test_dust_that_fails_comes_back",
            "wallet/lightning/test_receive_unexitable.py::test_a_grant_of_nothing_but_dust",
        ),
    ),
    "05 §11.19": Line(
        "limits are looked at here, for the server's refusals do not look like some",
        (
            _RECEIVE + "test_no_invoice_if_the_server_allows_no_time_for_an_exit",
            "ark/test_lightning_receive.py::test_as_much_time_is_asked_for_as_is_useful_and_allowed",
            "wallet/flows/test_internal_errors.py::test_every_call_fails_for_ever",
        ),
    ),
    "05 §11.20": Line(
        "which destination a text is; an address keeps its capitals",
        (
            _REQUEST + "test_destinations_are_recognised",
            _REQUEST + "test_where_a_lightning_address_asks_for_an_invoice",
        ),
    ),
    "05 §11.21": Line(
        "two programs do not drive one wallet",
        (
            "test_datadir.py::test_the_wallet_lock_excludes_other_programs",
            "daemon/test_database_file.py::test_a_file_is_one_daemons",
            "wallet/store/test_transaction.py::test_two_programs_do_not_write_to_one_postgresql_database",
        ),
    ),
}
