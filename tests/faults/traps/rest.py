"""Sheet 07 §13: the REST interface and the command line.

Much of it is in the answers that were recorded from barkd 0.8.0: `contract/test_recorded.py` sends the same
bytes again, and `contract/test_recorded_complete.py` sees to it that none is left out.
"""

from tests.faults.register import Line

_BARE = "contract/test_recorded.py::test_without_a_wallet"
_HEADS = "contract/test_recorded.py::test_heads_with_a_wallet"
_LIFE = "contract/test_recorded_life.py::test_the_life_of_a_wallet"
_ROUTES = "api/test_wallet_routes.py::"
_OTHERS = "api/test_other_routes.py::"
_SENDS = "api/test_lightning_sends.py::"
_JSON = "api/test_json_body.py::"
_EXITS = "api/test_exits.py::"
_RUNTIME = "daemon/test_runtime.py::"
_CLI = "test_cli.py::"
_POLLS = "wallet/test_notifications.py::"
_DATADIR = "test_datadir.py::"

TRAPS = {
    "07 §13.1": Line("a 422 is text or JSON", (_BARE, _JSON + "test_json_of_the_wrong_shape_is_a_422")),
    "07 §13.2": Line(
        "the 404 of an unknown path is bare; it repeats nothing here",
        (
            _BARE,
            "contract/test_recorded_complete.py::test_every_recorded_answer_is_asked_for_again_or_has_its_reason",
        ),
    ),
    "07 §13.3": Line("401, 405 and OPTIONS", (_BARE, "contract/test_recorded.py::test_with_allowed_origins")),
    "07 §13.4": Line("two paths have no slash at their end", (_BARE,)),
    "07 §13.5": Line(
        "words are no ids", (_BARE, _LIFE, _EXITS + "test_the_old_path_reads_its_query_for_old_clients")
    ),
    "07 §13.6": Line("a colon may be escaped", (_EXITS + "test_a_colon_in_the_path_may_be_escaped", _LIFE)),
    "07 §13.7": Line(
        "some answers are empty",
        (
            _ROUTES + "test_sync_answers_with_nothing",
            _OTHERS + "test_onchain_sync_answers_with_nothing",
            _LIFE,
        ),
    ),
    "07 §13.8": Line(
        "what is null, and what is absent",
        (
            _BARE,
            _ROUTES + "test_a_payment_to_an_ark_address",
            "api/test_render.py::test_a_movement_omits_what_it_does_not_have",
        ),
    ),
    "07 §13.9": Line("an empty body is no body", (_BARE, _SENDS + "test_a_uri_needs_a_body")),
    "07 §13.10": Line(
        "numbers are exact",
        (
            _JSON + "test_integers_are_exact_up_to_their_width",
            _JSON + "test_json_of_the_wrong_shape_is_a_422",
            _ROUTES + "test_ark_payments_that_are_refused",
            "faults/test_bad_input.py::test_an_amount_that_cannot_be_paid",
        ),
    ),
    "07 §13.11": Line(
        "true is no number", (_BARE, "api/test_params.py::test_other_spellings_of_numbers_are_refused")
    ),
    "07 §13.12": Line(
        "an Ark payment without an amount is a 500", (_ROUTES + "test_ark_payments_that_are_refused",)
    ),
    "07 §13.13": Line(
        "a server that is away is no fault of the caller, unlike barkd's",
        (_ROUTES + "test_an_unreachable_server_is_no_fault_of_the_caller",),
    ),
    "07 §13.14": Line("bitcoin addresses are not sent to", (_ROUTES + "test_other_destinations",)),
    "07 §13.15": Line(
        "an LNURL is bech32, and no URI is a destination",
        (_SENDS + "test_what_is_no_destination_is_a_bad_request",),
    ),
    "07 §13.16": Line(
        "what has no capitals fails too late",
        (_SENDS + "test_what_has_no_capitals_is_refused_after_it_was_made",),
    ),
    "07 §13.17": Line(
        "an offboard without an address takes one, whatever comes of it",
        (_OTHERS + "test_an_offboard_without_an_address_takes_a_new_one_whatever_comes_of_it",),
    ),
    "07 §13.18": Line(
        "an offboard that goes on is no failure",
        (
            "wallet/flows/test_offboard_trouble.py::test_a_call_that_cannot_end_says_where_it_is",
            "wallet/flows/test_offboard_trouble.py::test_a_locked_vtxo_does_not_leave_twice",
        ),
    ),
    "07 §13.19": Line(
        "who hangs up stops nothing",
        (
            _RUNTIME + "test_creation_goes_on_without_its_caller",
            "wallet/flows/test_arkoor_send.py::test_a_caller_that_goes_away_does_not_stop_the_payment",
            "wallet/lightning/test_send.py::test_a_caller_who_leaves_does_not_stop_the_payment",
            "wallet/actions/test_drives.py::test_it_goes_on_when_the_caller_is_cancelled",
        ),
    ),
    "07 §13.20": Line(
        "open sockets do not keep a deleted wallet",
        (
            "api/test_live_notifications.py::"
            "test_deletion_ends_sockets_and_polls_and_the_next_wallet_is_made_while_they_are_open",
            _RUNTIME + "test_deletion_unloads_and_wipes",
        ),
    ),
    "07 §13.21": Line(
        "locks that end with any descriptor, and locks that do not",
        (
            _DATADIR + "test_another_program_sees_our_wallet_lock",
            _DATADIR + "test_the_wallet_lock_excludes_a_second_wallet_of_this_process",
            _DATADIR + "test_the_process_lock_excludes_barkd",
            _DATADIR + "test_the_process_lock_excludes_itself",
        ),
    ),
    "07 §13.22": Line(
        "what a failed opening leaves is in the way until it is deleted",
        (
            _RUNTIME + "test_a_wallet_that_does_not_open_after_creation_is_kept",
            _RUNTIME + "test_without_a_wallet_leftovers_are_wiped_whatever_the_fingerprint",
        ),
    ),
    "07 §13.23": Line(
        "the log goes on after the file was deleted with the wallet",
        ("test_logs.py::test_the_log_goes_on_in_a_new_file_when_the_old_one_is_removed",),
    ),
    "07 §13.24": Line(
        "the server's terms and whether it is there are those of now",
        (
            "server_rpc/test_connection.py::test_info_is_read_again_when_it_is_ten_minutes_old",
            "wallet/flows/test_loops.py::test_a_lost_stream_disconnects_and_the_heartbeat_reconnects",
        ),
    ),
    "07 §13.25": Line(
        "four units of fee rates",
        (
            "bitcoin/test_tx.py::test_fee_rates_convert_and_round_as_upstreams",
            "api/test_render.py::test_fee_rates_are_rounded_up_to_whole_satoshis",
            _EXITS + "test_the_fee_rate_of_children_is_per_kvb",
            "test_config.py::test_defaults_differ_by_network",
        ),
    ),
    "07 §13.26": Line(
        "amounts of many recipients have a denomination",
        (
            _OTHERS + "test_many_recipients_each_with_a_denomination",
            "api/test_amounts.py::test_amounts_are_read",
            _LIFE,
        ),
    ),
    "07 §13.27": Line(
        "a receive has several names, in either case",
        ("api/test_lightning_receives.py::test_a_settled_payment_is_found_by_all_its_names",),
    ),
    "07 §13.28": Line(
        "the history of one destination runs the other way",
        (
            _OTHERS + "test_history_with_one_payment_method_is_oldest_first",
            "contract/test_seed_statements.py::test_history_of_one_destination_is_from_oldest_to_newest",
        ),
    ),
    "07 §13.29": Line(
        "the last event is delivered once",
        (
            "api/test_notifications.py::test_each_event_is_delivered_once_to_a_client_that_goes_on",
            _POLLS + "test_polls_that_continue_miss_nothing_of_the_same_instant",
            _POLLS + "test_polls_miss_nothing_and_see_nothing_twice_when_the_clock_is_set",
        ),
    ),
    "07 §13.30": Line(
        "a plus that is not escaped is a blank",
        (_BARE, "api/test_params.py::test_plus_is_a_blank_and_percent_is_decoded"),
    ),
    "07 §13.31": Line(
        "what is looked at before the token, and before the wallet",
        (_BARE, "api/test_notifications.py::test_without_a_wallet_the_socket_closes"),
    ),
    "07 §13.32": Line(
        "timestamps have an offset",
        ("api/test_render.py::test_timestamps_are_utc_with_the_shortest_fraction",),
    ),
    "07 §13.33": Line(
        "the environment is of the command line and of the wallet",
        (
            "test_config.py::test_a_malformed_variable_is_refused_by_its_setting",
            "test_config.py::test_unknown_keys_are_passed_over",
        ),
    ),
    "07 §13.34": Line(
        "which hosts are some",
        (_CLI + "test_a_start_that_is_refused", "api/test_server.py::test_addresses_as_people_write_them"),
    ),
    "07 §13.35": Line(
        "when a start without authentication is refused", (_CLI + "test_a_start_that_is_refused",)
    ),
    "07 §13.36": Line("HEAD is served where GET is", (_HEADS, _BARE)),
    "07 §13.37": Line(
        "mutinynet is stored as a signet",
        (
            "onchain/test_creation.py::test_mutinynet_wallet_is_a_signet_wallet",
            "ark/test_info.py::test_the_network_has_one_of_bitcoins_own_names",
        ),
    ),
    "07 §13.38": Line(
        "no limit is a number, for every client",
        ("api/test_render.py::test_ark_info_has_the_documented_form",),
    ),
    "07 §13.39": Line(
        "an import without a chain source is a bad request",
        ("wallet/flows/test_wallet.py::test_what_the_chain_does_not_prove_is_not_imported",),
    ),
    "07 §13.40": Line("a body has a largest size", (_ROUTES + "test_a_body_has_a_largest_size", _BARE)),
    "07 §13.41": Line(
        "no amount hangs or drops the connection",
        (
            "wallet/flows/test_arkoor_send.py::test_an_amount_of_zero_is_refused",
            _ROUTES + "test_ark_payments_that_are_refused",
        ),
    ),
    "07 §13.42": Line(
        "a VTXO is spendable until its exit is confirmed",
        (
            "wallet/exits/test_service.py::test_exited_vtxos_count_in_no_other_balance",
            "wallet/flows/test_exits.py::test_a_coin_that_is_paid_away_ends_its_exit",
        ),
    ),
    "07 §13.43": Line(
        "what may be named twice",
        (
            _LIFE,
            "wallet/flows/test_round_trouble.py::test_what_cannot_be_refreshed_is_refused",
            "wallet/offboards/test_terms.py::test_what_cannot_leave",
        ),
    ),
}
