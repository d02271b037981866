"""Sheet 09 §10: the daemon's loops, and what it stores."""

from tests.faults.register import Line

_STORE_MOVEMENTS = "wallet/store/test_movements.py::"
_MOVEMENTS = "wallet/test_movements.py::"
_MAILBOX = "wallet/flows/test_mailbox.py::"
_STORE_VTXOS = "wallet/store/test_vtxos.py::"
_BALANCE = "wallet/test_balance.py::"
_PERIODS = "daemon/test_loop_periods.py::"
_SEND = "wallet/flows/test_arkoor_send.py::"
_LOOPS = "wallet/flows/test_loops.py::"

TRAPS = {
    "09 §10.1": Line(
        "an update may come before its creation",
        (_STORE_MOVEMENTS + "test_creation_with_an_update_announces_the_update_first",),
    ),
    "09 §10.2": Line(
        "destinations are appended: a step that runs twice must replace them",
        (
            _MOVEMENTS + "test_destinations_are_appended_even_twice_and_vtxos_once",
            _MOVEMENTS + "test_replacing_overwrites_the_whole_list",
            _SEND + "test_every_step_may_run_twice",
        ),
    ),
    "09 §10.3": Line(
        "who finishes twice changes nothing",
        (
            _STORE_MOVEMENTS + "test_finishing_twice_is_silent",
            _MOVEMENTS + "test_finishing_twice_keeps_the_first_completion",
        ),
    ),
    "09 §10.4": Line(
        "a server that is away stops nothing that does not need it",
        (
            _PERIODS + "test_boards_are_looked_at_each_minute_connected_or_not",
            "wallet/flows/test_forced_exits.py::"
            "test_a_board_that_the_server_did_not_take_exits_while_it_is_away",
        ),
    ),
    "09 §10.5": Line(
        "only what may pass holds up the mailbox",
        (
            _MAILBOX + "test_an_anchor_that_stays_unknown_blocks_for_a_while_only",
            _MAILBOX + "test_one_bad_vtxo_does_not_spoil_the_good_ones",
            _MAILBOX + "test_a_round_that_cannot_be_looked_at_now_waits_and_blocks_what_follows",
            _MAILBOX + "test_anchors_that_a_payer_has_made_up_block_no_longer_for_being_many",
        ),
    ),
    "09 §10.6": Line(
        "stream and request read the same messages",
        (_MAILBOX + "test_two_readers_at_once_make_one_movement",),
    ),
    "09 §10.7": Line(
        "that nothing is left is not to be relied on", (_MAILBOX + "test_groups_that_pages_cut_arrive_whole",)
    ),
    "09 §10.8": Line(
        "states of the same moment have an order",
        (_STORE_VTXOS + "test_states_of_one_moment_keep_their_order",),
    ),
    "09 §10.9": Line(
        "who does not hold a lock does not release it",
        (
            _STORE_VTXOS + "test_rows_follow_the_table",
            "wallet/test_vtxo_states.py::test_each_change_from_each_state",
        ),
    ),
    "09 §10.10": Line(
        "a board's VTXO is its movement's",
        (
            _BALANCE + "test_a_board_reports_what_its_movement_holds",
            "wallet/flows/test_board.py::test_a_kill_at_any_commit_boards_once_or_not_at_all",
            _STORE_VTXOS + "test_the_holders_locks_are_released_together",
        ),
    ),
    "09 §10.11": Line(
        "a refusal after the server has signed releases nothing",
        (
            _SEND + "test_a_payment_that_a_lying_server_has_booked_waits_until_it_is_mended",
            "wallet/flows/test_offboard_lies.py::"
            "test_badly_cosigned_splits_are_undone_only_if_the_server_has_not_booked_them",
            "wallet/actions/test_executor.py::test_nothing_is_stored_if_the_first_state_cannot_be_made",
        ),
    ),
    "09 §10.12": Line(
        "an interval of nothing is refused", ("test_config.py::test_values_out_of_range_are_refused",)
    ),
    "09 §10.13": Line(
        "announcements may fail to come",
        (
            "chain/test_tip_watcher.py::test_interval_is_enough",
            "chain/test_tip_watcher.py::test_malformed_address_leaves_polling",
            _PERIODS + "test_without_a_block_it_is_done_each_minute",
        ),
    ),
    "09 §10.14": Line(
        "which locks a balance counts",
        (
            _BALANCE + "test_a_round_has_inputs_that_are_locked_for_exactly_its_movement",
            _BALANCE + "test_an_action_has_what_it_reports_while_it_is_locked",
        ),
    ),
    "09 §10.15": Line(
        "a chain source that goes away does not make what has expired spendable",
        (
            "wallet/test_recent_tip.py::test_a_chain_that_is_away_leaves_the_last_tip_or_none",
            "faults/test_outages.py::test_no_start_without_the_chain_source",
        ),
    ),
    "09 §10.16": Line(
        "a participation that was called off is over",
        (
            "wallet/flows/test_round_trouble.py::test_a_refresh_is_canceled_until_it_is_signed",
            "wallet/flows/test_round_trouble.py::test_a_refresh_of_nothing_that_is_left_is_called_off",
        ),
    ),
    "09 §10.17": Line(
        "migrations read tables before they drop them",
        ("wallet/store/test_migrations.py::test_the_migrations_lead_to_the_tables_of_the_program",),
        not_ours="the numbers are of barkd's own migrations, of a database that is not ours",
    ),
    "09 §10.18": Line(
        "a lock ends with any descriptor of its file",
        ("test_datadir.py::test_another_program_sees_our_wallet_lock",),
    ),
    "09 §10.19": Line(
        "tasks are kept, stopped, and not deaf",
        (
            "daemon/test_supervisor.py::test_a_failing_loop_is_restarted_and_the_others_go_on",
            "daemon/test_supervisor.py::test_a_loop_that_loses_a_cancellation_is_cut_off_all_the_same",
            _LOOPS + "test_a_wallet_closes_promptly",
        ),
    ),
    "09 §10.20": Line(
        "two pauses do not add up", (_LOOPS + "test_the_mailbox_is_read_as_soon_as_the_server_is_back",)
    ),
    "09 §10.21": Line(
        "durations are whole, deltas have a bound",
        (
            "test_config.py::test_values_out_of_range_are_refused",
            "ark/test_info.py::test_a_delta_that_could_overflow_heights_is_refused",
        ),
    ),
}
