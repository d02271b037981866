"""The knobs of a misbehaving server, row by row, and the tests that turn them on a wallet.

The keys are the rows of the table of fault knobs in protocol sheet 10 §14: its section, and the row's number
within the section. Where a wallet was not shown all that a row asks for, `open` says what is missing.
"""

from tests.faults.register import Line

KNOBS_PER_SECTION = {
    "transport": 8,
    "board": 4,
    "arkoor": 5,
    "round": 8,
    "swap": 9,
    "offboard": 6,
    "lightning-send": 5,
    "lightning-receive": 6,
    "mailbox": 5,
    "chain": 6,
}
"""How many rows each section of the table has."""

_KNOBS = "wallet/flows/test_server_knobs.py::"
_INTERNAL = "wallet/flows/test_internal_errors.py::"
_LN = "wallet/flows/test_lightning_lies.py::"
_LN_SEND = "wallet/flows/test_lightning_send.py::"
_LN_RECEIVE = "wallet/flows/test_lightning_receive.py::"
_SENDING = "wallet/lightning/test_send.py::"
_SEND_LIES = "wallet/lightning/test_send_lies.py::"
_RECEIVING = "wallet/lightning/test_receive.py::"
_RECEIVE_LIES = "wallet/lightning/test_receive_lies.py::"
_BOARD = "wallet/flows/test_board.py::"
_ARKOOR = "wallet/flows/test_arkoor_send.py::"
_TROUBLE = "wallet/flows/test_round_trouble.py::"
_TRAPS = "wallet/flows/test_round_traps.py::"
_CRASHES = "wallet/flows/test_round_crashes.py::"
_ROUND_LIES = "wallet/flows/test_round_lies.py::"
_OFFBOARDS = "wallet/flows/test_offboard_trouble.py::"
_OFFBOARD_LIES = "wallet/flows/test_offboard_lies.py::"
_MAILBOX = "wallet/flows/test_mailbox.py::"
_HOSTILE_MAILBOX = "faults/test_hostile_mailbox.py::"
_RECOVERY = "wallet/flows/test_hostile_recovery.py::"
_LYING = "faults/test_lying_server.py::"
_OUTAGES = "faults/test_outages.py::"
_CONNECTION = "server_rpc/test_connection.py::"
_CLIENT = "server_rpc/test_client.py::"

KNOBS: dict[str, Line] = {
    "transport.1": Line(
        "an answer comes after the deadline",
        (
            _CONNECTION + "test_an_expired_deadline_leaves_the_outcome_unknown",
            _KNOBS + "test_a_connection_that_ends_in_the_middle_of_a_call",
            _KNOBS + "test_an_answer_after_the_deadline_is_asked_for_again",
        ),
    ),
    "transport.2": Line(
        "the answer is lost after all was done",
        (
            _ARKOOR + "test_a_lost_call_is_made_again",
            _BOARD + "test_registration_goes_on_until_it_succeeds",
            _TROUBLE + "test_a_lost_answer_in_the_swap_is_asked_for_again",
            _TROUBLE + "test_a_lost_answer_to_a_delegation_is_repeated",
            _OFFBOARDS + "test_a_lost_answer_to_the_forfeits_is_repeated",
            _LN_SEND + "test_an_answer_is_lost_at_every_call",
            _LN_RECEIVE + "test_a_restart_at_any_time_is_no_harm",
        ),
    ),
    "transport.3": Line(
        "unavailable, going away, connections refused",
        (
            _KNOBS + "test_a_connection_that_ends_in_the_middle_of_a_call",
            _OUTAGES + "test_a_server_that_is_away_for_a_while",
            _OUTAGES + "test_a_start_without_the_server",
            "wallet/flows/test_loops.py::test_a_lost_stream_disconnects_and_the_heartbeat_reconnects",
            "server_rpc/test_streams.py::test_five_streams_without_a_message_are_enough",
        ),
    ),
    "transport.4": Line(
        "answers of more than 4 MiB, and of more than 64",
        (
            _CONNECTION + "test_an_answer_larger_than_the_library_allows_by_default_arrives",
            _CONNECTION + "test_an_answer_beyond_the_largest_size_is_refused",
            _KNOBS + "test_a_proposal_of_a_round_that_is_too_large",
            _KNOBS + "test_a_mailbox_page_that_is_too_large",
        ),
    ),
    "transport.5": Line(
        "look-ups that an older server does not have",
        (
            _CLIENT + "test_an_old_server_is_asked_for_one_vtxo_at_a_time",
            _CLIENT + "test_a_server_without_recovery_by_xpub",
            _RECOVERY + "test_answers_for_another_vtxo_or_none_are_asked_again",
        ),
    ),
    "transport.6": Line(
        "an internal error, once and for ever",
        (
            _ARKOOR + "test_a_lost_call_is_made_again",
            _BOARD + "test_registration_goes_on_until_it_succeeds",
            "wallet/flows/test_automatic_refresh.py::test_rounds_that_never_come_about_are_given_up_for_a_while",
            _LN_SEND + "test_htlcs_that_the_server_keeps_are_taken_on_chain",
            _LN_RECEIVE + "test_a_server_that_does_not_pay_is_forced_to",
            _RECOVERY + "test_one_poisoned_id_does_not_hide_the_others",
            _INTERNAL + "test_each_call_fails_once",
            _INTERNAL + "test_every_call_fails_for_ever",
        ),
    ),
    "transport.7": Line(
        "terms that cannot be used, and keys of another server",
        (
            _LYING + "test_a_server_that_is_no_longer_itself",
            _LYING + "test_no_wallet_with_such_a_server",
            _CONNECTION + "test_unsafe_terms_are_refused",
            _CONNECTION + "test_malformed_info_is_refused",
            _CONNECTION + "test_every_part_of_the_fee_schedule_must_be_there",
            _CONNECTION + "test_an_unsorted_fee_table_is_refused",
            "ark/test_info.py::test_a_server_without_exit_delta_or_nonces_is_never_safe",
            "wallet/flows/test_exits.py::test_a_server_that_has_become_another_does_not_stop_exits",
        ),
    ),
    "transport.8": Line(
        "protocol versions that do not meet, or meet at the older one",
        (
            _KNOBS + "test_a_server_without_a_common_protocol",
            _KNOBS + "test_a_server_of_the_older_protocol",
        ),
    ),
    "board.1": Line(
        "a wrong cosignature, or one for another fee",
        (
            _BOARD + "test_nothing_is_broadcast_for_a_wrong_cosignature",
            _LYING + "test_a_board_that_is_not_cosigned",
            _LYING + "test_a_server_that_signs_for_another_fee",
        ),
    ),
    "board.2": Line(
        "registration is refused for ever",
        (
            _LYING + "test_a_board_that_the_server_will_not_register",
            _BOARD + "test_a_board_that_is_never_registered_is_exited_before_it_expires",
        ),
    ),
    "board.3": Line(
        "the answer to the registration is lost", (_BOARD + "test_registration_goes_on_until_it_succeeds",)
    ),
    "board.4": Line(
        "what funds it is spent",
        (
            _BOARD + "test_a_funding_input_that_is_spent_for_good_ends_the_board",
            _BOARD + "test_only_proof_condemns_a_funding_transaction",
            _LYING + "test_a_board_that_the_server_will_not_register",
        ),
    ),
    "arkoor.1": Line(
        "a signature is wrong, a nonce or a part is missing",
        (
            _ARKOOR + "test_a_server_that_lies_once_is_asked_again",
            _ARKOOR + "test_a_server_that_keeps_lying_is_given_up_if_it_spent_nothing",
            _ARKOOR + "test_a_payment_that_a_lying_server_has_booked_waits_until_it_is_mended",
        ),
    ),
    "arkoor.2": Line(
        "an internal error says that it is spent",
        (
            "wallet/flows/test_recovery.py::test_a_vtxo_that_was_spent_elsewhere_does_not_block_payments",
            _KNOBS + "test_a_vtxo_that_the_server_says_is_spent_and_is_not",
        ),
    ),
    "arkoor.3": Line(
        "a refusal says that it is not spendable",
        (
            _ARKOOR + "test_a_refused_payment_is_undone",
            "wallet/flows/test_recovery.py::test_a_vtxo_that_was_spent_elsewhere_does_not_block_payments",
        ),
    ),
    "arkoor.4": Line(
        "outputs are not registered",
        (
            _ARKOOR + "test_registration_that_is_refused_does_not_keep_the_payment_from_its_recipient",
            _HOSTILE_MAILBOX + "test_a_registration_that_never_works_keeps_nothing_from_anybody",
            _MAILBOX + "test_catching_up_posts_and_registers_everything",
        ),
    ),
    "arkoor.5": Line(
        "the mailbox does not take it, or does not deliver it",
        (
            _ARKOOR + "test_a_delivery_that_every_mailbox_refuses_ends_and_the_change_is_ours",
            _ARKOOR + "test_one_mailbox_of_several_is_enough",
            _ARKOOR + "test_a_lost_call_is_made_again",
            _KNOBS + "test_a_payment_that_is_taken_and_never_delivered",
        ),
    ),
    "round.1": Line("a proposal that is wrong", (_ROUND_LIES + "test_a_bad_proposal_is_not_signed",)),
    "round.2": Line(
        "signatures are taken and ignored",
        (
            _TROUBLE + "test_a_second_attempt_goes_on_without_the_silent_one",
            _TROUBLE + "test_refused_signatures_cost_one_round",
            _KNOBS + "test_signatures_that_are_taken_and_thrown_away",
        ),
    ),
    "round.3": Line(
        "the round fails after the signatures",
        (
            "wallet/rounds/test_machine.py::test_a_signed_tree_is_left_only_by_the_word_of_the_server",
            _TROUBLE + "test_a_server_killed_at_the_end_of_a_round",
        ),
    ),
    "round.4": Line(
        "another end than the one that was signed",
        (_ROUND_LIES + "test_a_bad_end_of_a_round_is_looked_up",),
    ),
    "round.5": Line(
        "events are lost, come twice, late, or in another order",
        (
            _TROUBLE + "test_a_missed_end_is_found_by_a_sync",
            _TROUBLE + "test_a_missed_proposal_costs_one_round",
            _TROUBLE + "test_events_may_come_twice",
            "wallet/rounds/test_machine.py::test_replayed_and_foreign_events_mean_nothing",
        ),
    ),
    "round.6": Line(
        "the server restarts at the end of a round",
        (
            _TROUBLE + "test_a_server_killed_at_the_end_of_a_round",
            _CRASHES + "test_a_server_restarted_after_each_event_of_a_round",
        ),
    ),
    "round.7": Line(
        "a refusal names inputs",
        (
            _TROUBLE + "test_refused_inputs_fail_an_explicit_refresh_as_a_whole",
            "wallet/flows/test_automatic_refresh.py::test_a_refused_vtxo_is_left_out_at_once_and_tried_again_later",
        ),
    ),
    "round.8": Line(
        "taken, and thrown away", (_TRAPS + "test_a_registration_that_the_server_threw_away_is_noticed",)
    ),
    "swap.1": Line(
        "a wrong cosignature of a leaf",
        (_ROUND_LIES + "test_a_bad_cosignature_of_a_leaf_stops_the_swap",),
    ),
    "swap.2": Line(
        "nonces: too few, too many, forgotten",
        (
            _ROUND_LIES + "test_a_wrong_number_of_forfeit_nonces_stops_the_swap",
            _CRASHES + "test_a_server_restarted_in_the_swap",
        ),
    ),
    "swap.3": Line(
        "the preimage is wrong, short, or withheld after the forfeits",
        (
            _ROUND_LIES + "test_a_wrong_preimage_is_asked_for_again",
            _TROUBLE + "test_a_lost_answer_in_the_swap_is_asked_for_again",
            "wallet/flows/test_round_rescue.py::test_a_server_that_says_nothing_for_ever",
            "wallet/flows/test_round_rescue.py::test_the_server_takes_the_forfeit_and_so_shows_the_preimage",
        ),
    ),
    "swap.4": Line("a leaf on another hash", (_ROUND_LIES + "test_nothing_is_forfeited_for_bad_leaves",)),
    "swap.5": Line(
        "delegated outputs that are not ours, or not as asked for",
        (_ROUND_LIES + "test_nothing_is_forfeited_for_bad_leaves",),
    ),
    "swap.6": Line(
        "what the server says of a participation",
        (
            _TRAPS + "test_a_participation_that_the_server_has_deleted_is_handed_over_again",
            _TRAPS + "test_a_participation_that_is_deleted_for_ever_is_given_up",
            _TRAPS + "test_an_unsigned_funding_transaction_is_taken_from_the_chain",
            "wallet/rounds/test_machine.py::test_every_state_meets_every_observation",
        ),
    ),
    "swap.7": Line(
        "other outputs when it is asked again",
        (_KNOBS + "test_a_second_answer_about_a_round_changes_nothing",),
    ),
    "swap.8": Line(
        "the round leaves the chain",
        (
            _CRASHES + "test_a_reorg_before_the_swap_delays_it",
            _CRASHES + "test_a_reorg_between_forfeits_and_preimage_loses_nothing",
            _CRASHES + "test_a_reorg_after_the_swap_leaves_money",
            _CRASHES + "test_a_transaction_that_nobody_has_is_broadcast_again",
        ),
    ),
    "swap.9": Line(
        "the round is double-spent",
        (_CRASHES + "test_a_double_spent_round_forfeits_nothing_and_ends_when_that_is_deep",),
    ),
    "offboard.1": Line(
        "a proposal that is wrong",
        (
            _OFFBOARD_LIES + "test_nothing_is_forfeited_for_another_transaction",
            _OFFBOARD_LIES + "test_a_malformed_proposal_is_refused",
        ),
    ),
    "offboard.2": Line(
        "the end is another transaction, or is not signed",
        (_OFFBOARD_LIES + "test_what_the_forfeits_were_for_is_asked_for_until_it_is_there",),
    ),
    "offboard.3": Line(
        "the end is lost, before or after it was booked",
        (
            _OFFBOARDS + "test_a_lost_answer_to_the_forfeits_is_repeated",
            _OFFBOARDS + "test_a_lost_answer_is_found_on_the_chain",
            _OFFBOARDS + "test_a_server_killed_before_it_books_is_asked_anew",
        ),
    ),
    "offboard.4": Line(
        "the session runs out, or costs another fee by now",
        (
            _OFFBOARDS + "test_a_session_that_ran_out_is_opened_anew",
            _OFFBOARDS + "test_what_proves_that_the_server_never_took_the_forfeits",
        ),
    ),
    "offboard.5": Line(
        "inputs are not spendable after a lost session",
        (
            _OFFBOARDS + "test_a_taken_forfeit_keeps_its_inputs_until_the_transaction_appears",
            _OFFBOARD_LIES + "test_a_proposal_that_lies_after_forfeits_releases_nothing",
        ),
    ),
    "offboard.6": Line(
        "signed, and not broadcast, or forgotten by the mempool",
        (
            _OFFBOARDS + "test_a_transaction_that_the_pool_forgot_is_offered_again",
            _OFFBOARDS + "test_a_transaction_that_is_lost_for_long_is_a_trouble_and_nothing_is_released",
        ),
    ),
    "lightning-send.1": Line(
        "the answer with the HTLCs is lost",
        (
            _LN_SEND + "test_an_answer_is_lost_at_every_call",
            _LN_SEND + "test_htlcs_that_were_cosigned_unheard_come_back",
            _LN + "test_htlcs_that_are_not_cosigned_are_not_paid_with",
        ),
    ),
    "lightning-send.2": Line(
        "a payment is refused, lost, or called begun",
        (
            _LN + "test_a_payment_that_is_called_begun_and_is_not_is_begun_again",
            _LN_SEND + "test_an_answer_is_lost_at_every_call",
            _SENDING + "test_a_refusal_to_pay_takes_the_htlcs_back",
            _SENDING + "test_a_server_that_never_knows_gives_the_htlcs_back",
        ),
    ),
    "lightning-send.3": Line(
        "what the server says of a payment",
        (
            _LN + "test_a_wrong_preimage_pays_nothing",
            _LN_SEND + "test_what_fails_comes_back_and_can_be_spent",
            _LN_SEND + "test_htlcs_that_expire_come_back",
            _LN_SEND + "test_a_success_that_is_called_a_failure_is_one",
        ),
    ),
    "lightning-send.4": Line(
        "what is asked back is not given back",
        (_LN_SEND + "test_htlcs_that_the_server_keeps_are_taken_on_chain",),
    ),
    "lightning-send.5": Line(
        "the mailbox says how it ended: never, twice, wrongly, of another payment",
        (
            _SEND_LIES + "test_a_wrong_preimage_in_the_mailbox_settles_nothing",
            _SEND_LIES + "test_another_hash_settles_nothing_of_ours",
            _SENDING + "test_the_mailbox_speaks_of_a_payment_that_is_not_known",
            _MAILBOX + "test_hints_about_lightning_are_acknowledged_whatever_comes_of_them",
        ),
    ),
    "lightning-receive.1": Line(
        "an invoice that is not what was asked for",
        (
            _LN + "test_another_invoice_is_not_given_out",
            _LN + "test_what_is_no_invoice_is_not_given_out",
            _RECEIVE_LIES + "test_another_invoice_is_not_given_out",
        ),
    ),
    "lightning-receive.2": Line(
        "a grant that is not what was promised",
        (
            _LN + "test_a_bad_grant_does_not_buy_the_preimage",
            _RECEIVE_LIES + "test_a_grant_that_is_not_as_it_should_be",
            _RECEIVE_LIES + "test_a_grant_that_is_just_good_enough",
            "wallet/lightning/test_receive_unexitable.py::test_a_grant_of_nothing_but_dust",
        ),
    ),
    "lightning-receive.3": Line(
        "two grants for one payment",
        (
            _LN + "test_two_grants_for_one_payment_are_counted_once",
            _LN + "test_a_better_grant_is_taken_while_there_is_time",
        ),
    ),
    "lightning-receive.4": Line(
        "the claim is lost, refused, or badly cosigned",
        (
            _LN + "test_a_claim_that_is_not_cosigned_is_repeated",
            _LN_RECEIVE + "test_a_server_that_does_not_pay_is_forced_to",
            _LN_RECEIVE + "test_a_server_that_pays_late_saves_the_exit",
            _RECEIVE_LIES + "test_a_refusal_after_the_preimage_is_out_undoes_nothing",
        ),
    ),
    "lightning-receive.5": Line("the pool is empty", (_LN + "test_an_empty_pool_is_waited_for",)),
    "lightning-receive.6": Line(
        "the server cancels after the grant",
        (
            _RECEIVING + "test_what_the_server_has_canceled_is_forgotten",
            _KNOBS + "test_a_payment_that_the_server_cancels_after_the_grant",
        ),
    ),
    "mailbox.1": Line(
        "from the beginning, going back, far ahead",
        (
            _HOSTILE_MAILBOX + "test_a_mailbox_that_is_read_to_us_from_the_beginning",
            _HOSTILE_MAILBOX + "test_messages_with_checkpoints_that_cannot_be",
            _MAILBOX + "test_checkpoints_of_the_future_are_not_believed",
            _MAILBOX + "test_checkpoints_that_go_back_are_not_believed",
        ),
    ),
    "mailbox.2": Line(
        "garbage, HTLCs, another server's, unknown kinds",
        (
            _LYING + "test_bytes_that_are_no_vtxo",
            _LYING + "test_a_vtxo_for_another_key",
            _MAILBOX + "test_one_bad_vtxo_does_not_spoil_the_good_ones",
            _MAILBOX + "test_messages_that_bring_nothing_are_acknowledged",
        ),
    ),
    "mailbox.3": Line(
        "a page ends within a group, or lies about the next one",
        (
            _MAILBOX + "test_groups_that_pages_cut_arrive_whole",
            _MAILBOX + "test_a_single_payment_takes_two_reads",
            _HOSTILE_MAILBOX + "test_a_mailbox_that_is_read_to_us_from_the_beginning",
        ),
    ),
    "mailbox.4": Line(
        "a stream is silent, is reset, fails",
        (
            "server_rpc/test_streams.py::test_five_streams_without_a_message_are_enough",
            "server_rpc/test_streams.py::test_anything_but_an_interruption_ends_it_at_once",
            "wallet/flows/test_loops.py::test_a_stream_that_breaks_is_opened_again",
            _LN_RECEIVE + "test_a_daemon_left_alone_claims_it",
        ),
    ),
    "mailbox.5": Line(
        "every authorization is called expired",
        (_HOSTILE_MAILBOX + "test_a_mailbox_that_refuses_every_authorization",),
    ),
    "chain.1": Line(
        "the server is behind the chain, or ahead of it",
        (
            _TRAPS + "test_a_wallet_far_ahead_of_the_server_does_not_sign_a_short_life",
            _SENDING + "test_a_server_that_is_a_block_behind_gets_enough",
            _LN_SEND + "test_htlcs_that_were_cosigned_unheard_come_back",
            _KNOBS + "test_a_server_that_is_not_at_our_height",
            _KNOBS + "test_boards_and_lightning_with_a_server_that_is_not_at_our_height",
        ),
    ),
    "chain.2": Line(
        "what expired is swept, while somebody exits",
        (
            "faults/test_exits.py::test_an_exit_that_comes_too_late_ends_as_swept",
            "wallet/exits/test_reorgs.py::test_a_sweep_is_believed_when_it_is_seven_blocks_deep",
            "wallet/exits/test_losses.py::test_what_was_swept_is_in_the_balance_and_has_not_left_in_history",
        ),
    ),
    "chain.3": Line(
        "checkpoints and forfeits against our exit",
        (
            "faults/test_exits.py::test_an_exit_of_what_was_paid_away_does_not_hurt_the_receiver",
            "wallet/exits/test_forced.py::test_a_payer_who_publishes_his_coin_does_not_get_it_back",
            "wallet/exits/test_losses.py::test_what_the_server_took_was_not_claimed_with_success",
        ),
    ),
    "chain.4": Line(
        "a VTXO is banned, or falsely called exited",
        (
            _KNOBS + "test_a_vtxo_that_the_server_takes_for_exited",
            "wallet/flows/test_recovery.py::test_a_banned_vtxo_does_not_block_payments",
        ),
    ),
    "chain.5": Line(
        "another VTXO than was asked for, garbage, an output of the server's own",
        (
            _KNOBS + "test_a_lookup_that_answers_with_the_servers_own_output",
            _RECOVERY + "test_answers_for_another_vtxo_or_none_are_asked_again",
            _CLIENT + "test_a_vtxo_that_cannot_be_decoded_is_an_error_of_the_server",
        ),
    ),
    "chain.6": Line(
        "spent is called spendable, and the other way round",
        (
            _HOSTILE_MAILBOX + "test_a_server_that_calls_everything_spent_takes_nothing",
            _RECOVERY + "test_a_parent_that_the_server_calls_spendable_is_no_money",
            _RECOVERY + "test_a_server_that_calls_everything_spent_is_not_believed_for_ever",
        ),
    ),
}
