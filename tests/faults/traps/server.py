"""Sheet 10 §17: what the real server does, which devnet's does as well or better, and what we make of it."""

from tests.faults.register import Line

_SERVER = "devnet/ark_server/"
_DELEGATED = _SERVER + "rounds/test_delegated.py::"
_IN_PERSON = _SERVER + "rounds/test_in_person.py::"
_FORFEITS = _SERVER + "rounds/test_forfeits.py::"
_SESSIONS = _SERVER + "funds/test_offboards.py::"
_LOOKUPS = _SERVER + "vtxos/test_lookups.py::"
_BOARDS = _SERVER + "vtxos/test_boards.py::"
_MAILBOXES = _SERVER + "vtxos/test_mailboxes.py::"
_RECEIVE = _SERVER + "lightning/test_receive.py::"
_TRAPS = "wallet/flows/test_round_traps.py::"
_OFFBOARDS = "wallet/flows/test_offboard_trouble.py::"
_SENDING = "wallet/lightning/test_send.py::"

TRAPS = {
    "10 §17.1": Line(
        "two equal outputs of a round are mixed up",
        (
            "wallet/flows/test_round_crashes.py::test_several_refreshes_of_one_wallet_in_one_round",
            _DELEGATED + "test_equal_outputs_are_told_apart",
        ),
    ),
    "10 §17.2": Line(
        "a leaf is registered once its preimage is out",
        (
            _FORFEITS + "test_forfeits_are_traded_for_the_preimage",
            "wallet/flows/test_round_trouble.py::test_a_lost_answer_in_the_swap_is_asked_for_again",
        ),
    ),
    "10 §17.3": Line(
        "a delegated participation of a busy input is deleted",
        (
            _DELEGATED + "test_input_that_is_busy_or_banned_when_its_round_comes_ends_it",
            _TRAPS + "test_a_delegated_input_that_was_paid_away_ends_the_participation",
        ),
    ),
    "10 §17.4": Line(
        "a participation of nothing", (_DELEGATED + "test_participation_of_nothing_is_deleted_at_the_round",)
    ),
    "10 §17.5": Line(
        "a forfeit that fails has used up nonces",
        (
            _FORFEITS + "test_wrong_signature_uses_up_the_nonces_before_it",
            "wallet/flows/test_round_crashes.py::test_a_server_restarted_in_the_swap",
        ),
    ),
    "10 §17.6": Line(
        "of two participations of one VTXO, one ends the other",
        (
            _DELEGATED + "test_round_in_person_with_an_input_ends_it",
            _TRAPS + "test_a_refresh_in_person_supersedes_a_delegated_one",
        ),
    ),
    "10 §17.7": Line(
        "the mailbox tells of a round before its transaction is signed",
        (
            _TRAPS + "test_an_unsigned_funding_transaction_is_taken_from_the_chain",
            "wallet/flows/test_round_trouble.py::test_the_mailbox_brings_the_lost_answer_to_a_delegation",
        ),
    ),
    "10 §17.8": Line(
        "an offboard's session counts from its beginning",
        (
            _SESSIONS + "test_session_ends_with_its_time",
            _OFFBOARDS + "test_a_session_that_ran_out_is_opened_anew",
        ),
    ),
    "10 §17.9": Line(
        "a fee rate of nothing is noticed too late",
        (
            "server_rpc/test_client.py::test_an_offboard_for_nothing_is_not_begun",
            _SESSIONS + "test_transaction_that_the_node_refuses_ends_the_session",
        ),
    ),
    "10 §17.10": Line(
        "forfeits and connectors are stored whole, and watched",
        (
            _SESSIONS + "test_forfeits_and_connectors_are_kept_signed",
            _SERVER + "watch/test_watchman.py::test_an_exit_of_an_offboarded_vtxo_meets_its_forfeit",
        ),
    ),
    "10 §17.11": Line(
        "what is left of a grant is granted again", (_RECEIVE + "test_change_of_the_pool_is_granted_again",)
    ),
    "10 §17.12": Line(
        "a pool is filled before it is empty",
        (
            _RECEIVE + "test_pool_that_is_half_empty_is_filled",
            "wallet/flows/test_lightning_lies.py::test_an_empty_pool_is_waited_for",
        ),
    ),
    "10 §17.13": Line(
        "a grant has no checkpoint",
        (
            _RECEIVE + "test_payment_from_outside",
            "wallet/flows/test_lightning_receive.py::test_a_node_outside_pays",
            "interop/test_lightning.py::test_bark_pays_outside_and_is_paid",
        ),
    ),
    "10 §17.14": Line(
        "a status is asked for with the VTXO's own key",
        (
            _LOOKUPS + "test_status_needs_the_owners_signature",
            _LOOKUPS + "test_many_states_come_in_request_order",
        ),
    ),
    "10 §17.15": Line(
        "the funding transaction goes with every board",
        (
            "server_rpc/test_client.py::test_a_board_request_carries_the_funding_transaction_without_witnesses",
            _BOARDS + "test_funding_transaction_must_be_that_of_the_outpoint",
        ),
    ),
    "10 §17.16": Line(
        "a server that lags behind fails to register",
        ("wallet/flows/test_board.py::test_registration_goes_on_until_it_succeeds",),
    ),
    "10 §17.17": Line(
        "no mail comes of a round in person: its end is looked up",
        (
            "wallet/flows/test_round_trouble.py::test_a_missed_end_is_found_by_a_sync",
            "wallet/flows/test_round_trouble.py::test_a_missed_end_is_looked_up_when_the_next_round_starts",
        ),
    ),
    "10 §17.18": Line(
        "only the first attempt of a round is joined",
        (
            "wallet/flows/test_automatic_refresh.py::test_the_threshold_and_what_goes_along",
            _IN_PERSON + "test_nobody_new_joins_a_later_attempt",
        ),
    ),
    "10 §17.19": Line(
        "a round on demand puts the next one off",
        (_IN_PERSON + "test_next_round_time_moves_with_each_start",),
    ),
    "10 §17.20": Line(
        "a refusal may hide a success",
        (
            _SENDING + "test_a_payment_that_was_made_unheard_is_no_failure",
            _SENDING + "test_a_preimage_in_a_refusal_counts",
        ),
    ),
    "10 §17.21": Line(
        "what the server does not check is not relied on",
        (
            "wallet/lightning/test_receive.py::test_no_invoice_if_the_server_allows_no_time_for_an_exit",
            _RECEIVE + "test_cltv_is_cut_to_16_bits",
            "wallet/flows/test_board.py::test_dust_and_more_than_there_is_are_refused",
            _IN_PERSON + "test_overpaying_is_accepted",
            "ark/test_rounds.py::test_a_proposal_that_is_not_what_we_asked_for_is_refused",
        ),
    ),
    "10 §17.22": Line(
        "a VTXO is delivered to one mailbox, perhaps to a wrong one; it can be imported",
        (
            _MAILBOXES + "test_second_delivery_of_a_vtxo_is_ignored_wherever_it_goes",
            "wallet/flows/test_wallet.py::test_a_backup_is_imported_once",
        ),
    ),
    "10 §17.23": Line(
        "nothing is named twice, for the refusal does not say what",
        (
            "wallet/flows/test_round_trouble.py::test_what_cannot_be_refreshed_is_refused",
            "wallet/offboards/test_terms.py::test_what_cannot_leave",
            _SERVER + "vtxos/test_arkoor.py::test_repeated_input_is_not_found_without_a_name",
        ),
    ),
    "10 §17.24": Line(
        "the server may take what has just exited",
        (
            _SERVER + "watch/test_follower.py::test_confirmed_exit_forbids_spending",
            "wallet/flows/test_forced_exits.py::test_a_payer_publishes_what_he_has_paid_with",
        ),
    ),
    "10 §17.25": Line(
        "clients that ping are borne",
        ("devnet/ark_server/test_server.py::test_clients_that_ping_are_borne",),
    ),
    "10 §17.26": Line(
        "nobody says that the terms have changed",
        ("server_rpc/test_connection.py::test_info_is_read_again_when_it_is_ten_minutes_old",),
    ),
}
