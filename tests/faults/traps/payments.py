"""Sheet 03 §10: boards, arkoor payments, offboards."""

from tests.faults.register import Line

_BOARD = "ark/test_board.py::"
_BOARDS = "wallet/flows/test_board.py::"
_ARKOOR = "ark/test_arkoor.py::"
_SEND = "wallet/flows/test_arkoor_send.py::"
_OFFBOARD = "ark/test_offboard.py::"
_OFFBOARDS = "wallet/flows/test_offboard_trouble.py::"
_KNOBS = "wallet/flows/test_server_knobs.py::"

TRAPS = {
    "03 §10.1": Line(
        "a board's fee is in its exit transaction",
        (_BOARD + "test_the_construction_is_upstream_s", _BOARD + "test_the_worked_example"),
    ),
    "03 §10.2": Line(
        "keys are stored as user, server",
        (_BOARD + "test_a_board_of_ours_is_valid_and_differs_from_upstream_s_by_its_signature_only",),
    ),
    "03 §10.3": Line(
        "checkpoints have the payer's key; the second tweak is theirs",
        (
            _ARKOOR + "test_checkpoint_outputs_belong_to_the_payer",
            _ARKOOR + "test_transactions_match_upstream_in_signing_order",
        ),
    ),
    "03 §10.4": Line(
        "the isolation output comes after all others",
        (_ARKOOR + "test_isolated_vtxos_hang_off_the_output_after_the_normal_ones",),
    ),
    "03 §10.5": Line(
        "other outputs do not count the anchor",
        (
            _ARKOOR + "test_new_vtxos_match_upstream_and_validate",
            "ark/test_vtxo.py::test_every_exit_transaction_has_the_stated_shape",
        ),
    ),
    "03 §10.6": Line(
        "attestations of payments are little-endian",
        (
            "ark/test_attestations.py::test_rounds_write_big_endian_and_payments_little_endian",
            _ARKOOR + "test_attestations_match_upstream",
        ),
    ),
    "03 §10.7": Line(
        "an attestation covers the outputs after the split",
        (_ARKOOR + "test_an_attestation_covers_the_split_outputs_and_their_order",),
    ),
    "03 §10.8": Line(
        "payment and change have different keys",
        (
            _ARKOOR + "test_change_has_another_key_than_the_payment",
            _SEND + "test_paying_the_key_that_would_be_the_change_is_refused",
        ),
    ),
    "03 §10.9": Line(
        "no more pieces than servers take",
        (
            _ARKOOR + "test_change_has_fewer_pieces_where_isolation_adds_one",
            _ARKOOR + "test_planned_outputs_always_make_a_package_that_servers_accept",
        ),
    ),
    "03 §10.10": Line(
        "nothing is no amount, and what is wrong here is not tried for ever",
        (
            _SEND + "test_an_amount_of_zero_is_refused",
            _SEND + "test_a_server_that_keeps_lying_is_given_up_if_it_spent_nothing",
            "wallet/actions/test_executor.py::test_a_bug_ends_even_a_drive_that_waits",
        ),
    ),
    "03 §10.11": Line(
        "a mailbox takes a hundred VTXOs at once",
        ("server_rpc/test_client.py::test_deliveries_are_split_by_a_hundred",),
    ),
    "03 §10.12": Line(
        "pauses have a bound, and so has a request's patience",
        (
            "wallet/actions/test_executor.py::test_retries_come_ever_more_slowly_up_to_a_minute",
            _SEND + "test_a_caller_waits_a_while_and_the_payment_goes_on",
        ),
    ),
    "03 §10.13": Line(
        "an error is not the end of an offboard",
        (
            _OFFBOARDS + "test_a_call_that_cannot_end_says_where_it_is",
            _OFFBOARDS + "test_a_locked_vtxo_does_not_leave_twice",
        ),
    ),
    "03 §10.14": Line(
        "a finished offboard is named in internal byte order",
        ("server_rpc/test_client.py::test_a_finished_offboard_is_named_in_internal_byte_order",),
    ),
    "03 §10.15": Line(
        "inputs of an offboard are always in the same order",
        (_OFFBOARDS + "test_a_lost_answer_to_preparing_several_is_repeated",),
    ),
    "03 §10.16": Line(
        "a session that is over is no failure of the payment",
        (
            _OFFBOARDS + "test_a_session_that_ran_out_is_opened_anew",
            _OFFBOARDS + "test_a_call_that_cannot_end_says_where_it_is",
        ),
    ),
    "03 §10.17": Line(
        "after the forfeits, nothing has failed that the chain may have",
        (
            _OFFBOARDS + "test_what_proves_that_the_server_never_took_the_forfeits",
            _OFFBOARDS + "test_a_lost_answer_is_found_on_the_chain",
        ),
    ),
    "03 §10.18": Line(
        "without confirmations to wait for, inputs stay locked until the next look",
        (
            _OFFBOARDS + "test_a_session_that_ran_out_is_opened_anew",
            _OFFBOARDS + "test_it_is_done_when_it_is_deep_enough",
        ),
    ),
    "03 §10.19": Line(
        "a split may make more VTXOs than leave at once",
        (_OFFBOARDS + "test_a_split_into_more_than_may_leave_at_once_is_not_begun",),
    ),
    "03 §10.20": Line(
        "expired VTXOs are not split",
        ("wallet/offboards/test_terms.py::test_a_send_takes_neither_expired_vtxos_nor_those_too_deep",),
    ),
    "03 §10.21": Line(
        "the fee rate is the server's integer",
        (
            "server_rpc/test_client.py::test_the_offboard_rate_is_divided_down_as_the_server_does",
            "server_rpc/test_client.py::test_a_prepared_offboard_has_a_nonce_per_input",
        ),
    ),
    "03 §10.22": Line(
        "a refusal may come after a success that was lost",
        (
            _SEND + "test_amounts_that_were_cosigned_for_others_are_refused_for_good",
            _SEND + "test_a_payment_that_a_lying_server_has_booked_waits_until_it_is_mended",
            _OFFBOARDS + "test_a_lost_answer_to_the_split_is_repeated",
        ),
    ),
    "03 §10.23": Line(
        "boards that begin together do not share coins",
        (
            _BOARDS + "test_boards_that_begin_at_the_same_time_choose_different_coins",
            _BOARDS + "test_two_boards_at_once_choose_different_coins",
        ),
    ),
    "03 §10.24": Line(
        "a board's amount is net",
        (
            "api/test_other_routes.py::test_a_board_is_pending_with_its_net_amount",
            "api/test_render.py::test_boards_and_fees_have_the_documented_form",
            "contract/test_recorded_life.py::test_the_life_of_a_wallet",
        ),
    ),
    "03 §10.25": Line(
        "the server's height may be another",
        (_KNOBS + "test_boards_and_lightning_with_a_server_that_is_not_at_our_height",),
    ),
    "03 §10.26": Line(
        "a funding transaction that was replaced ends its board",
        (
            _BOARDS + "test_a_funding_input_that_is_spent_for_good_ends_the_board",
            _BOARDS + "test_only_proof_condemns_a_funding_transaction",
        ),
    ),
    "03 §10.27": Line(
        "the server may not know the coins yet: refused, nothing is stored",
        (
            _BOARDS + "test_nothing_is_stored_if_the_server_does_not_cosign",
            "devnet/ark_server/vtxos/test_boards.py::test_inputs_of_the_funding_transaction_must_be_known",
        ),
    ),
    "03 §10.28": Line(
        "what expires at the tip has expired",
        (
            "wallet/vtxos/test_selection.py::test_expired_vtxos_do_not_pay_where_that_matters",
            "ark/test_fees.py::test_blocks_to_expiry_stop_at_zero",
            "wallet/test_balance.py::test_expired_vtxos_need_a_refresh",
        ),
    ),
    "03 §10.29": Line(
        "one input needs no fan-out",
        (
            _OFFBOARD + "test_forfeits_are_upstream_s",
            _OFFBOARD + "test_the_connector_of_several_inputs_is_one_of_the_fan_out_not_the_whole_output",
        ),
    ),
    "03 §10.30": Line(
        "a lock is its holder's alone",
        (
            "wallet/store/test_vtxos.py::test_the_holders_locks_are_released_together",
            "wallet/actions/test_executor.py::test_the_end_releases_what_the_action_held_and_nothing_else",
        ),
    ),
    "03 §10.31": Line(
        "what is spent is marked before its action ends",
        (
            _SEND + "test_every_step_may_run_twice",
            _SEND + "test_a_kill_at_any_commit_pays_once_or_not_at_all",
            "wallet/store/test_vtxos.py::test_an_action_cannot_leave_its_locks_behind",
        ),
    ),
    "03 §10.32": Line(
        "a package of one, which old nodes refuse",
        (
            "chain/source_cases.py::test_package_of_one_is_accepted",
            "chain/test_bitcoind.py::test_old_node_is_refused",
            "chain/test_esplora.py::test_server_without_package_endpoint_is_no_refusal",
        ),
    ),
}
