"""What a client must verify, line by line, and the tests that show that ours does.

The keys are the lines of the lists "Client must verify" of the protocol sheets: the sheet's number, and the
line's within the list. Where no test is named, the line says why; `test_register` sees to it that every test
exists and that no line is left out.
"""

from typing import NamedTuple


class Line(NamedTuple):
    """tests: names of files below tests/ and of functions in them. open: what is not shown, if anything.

    not_ours: why the line is about nothing that we do, if it is not.
    """

    rule: str
    tests: tuple[str, ...]
    open: str = ""
    not_ours: str = ""


LINES_PER_SHEET = {
    "01": 11,
    "02": 13,
    "03": 10,
    "04": 12,
    "05": 13,
    "06": 8,
    "07": 12,
    "08": 10,
    "09": 10,
    "10": 6,
}
"""How long each list is. In sheet 05, seven lines about sending are followed by six about receiving."""

_VALID = "ark/test_validation.py::"
_ROUNDS = "ark/test_rounds.py::"
_SWAP = "wallet/rounds/test_swap.py::"
_ARKOOR = "ark/test_arkoor.py::"
_BOARD = "wallet/flows/test_board.py::"
_SEND = "wallet/flows/test_arkoor_send.py::"
_MAILBOX = "wallet/flows/test_mailbox.py::"
_WALLET = "wallet/flows/test_wallet.py::"
_LIES = "faults/test_lying_server.py::"
_ROUND_LIES = "wallet/flows/test_round_lies.py::"
_OFFBOARD_LIES = "wallet/flows/test_offboard_lies.py::"
_OFFBOARDS = "wallet/flows/test_offboard_trouble.py::"
_RECEIVE_LIES = "wallet/lightning/test_receive_lies.py::"
_UNEXITABLE = "wallet/lightning/test_receive_unexitable.py::"
_RECEIVE = "wallet/lightning/test_receive.py::"
_CLIENT = "server_rpc/test_client.py::"
_CONNECTION = "server_rpc/test_connection.py::"
_KEYCHAIN = "wallet/test_keychain.py::"
_SENDING = "wallet/lightning/test_send.py::"
_SEND_LIES = "wallet/lightning/test_send_lies.py::"
_LIGHTNING_LIES = "wallet/flows/test_lightning_lies.py::"
_LNURL = "wallet/lightning/test_lnurl.py::"
_GREEDY = "wallet/flows/test_greedy_server.py::"
_INVOICES = "wallet/lightning/test_invoices.py::"
_LIGHTNING = "faults/test_lightning.py::"
_BOLT12 = "bitcoin/test_bolt12_invoice.py::"

_NEWCOMER = (
    _MAILBOX + "test_one_bad_vtxo_does_not_spoil_the_good_ones",
    _MAILBOX + "test_what_belongs_to_somebody_else_is_dropped",
    "wallet/flows/test_mailbox_lies.py::test_what_another_server_has_cosigned_is_no_money",
    "wallet/flows/test_mailbox_lies.py::test_an_htlc_is_no_payment",
    "wallet/flows/test_hostile_recovery.py::test_what_another_server_has_cosigned_is_no_money",
    _LIES + "test_a_vtxo_for_another_key",
    _LIES + "test_a_vtxo_that_is_not_backed",
)
_OTHER_SERVER = (
    _KEYCHAIN + "test_another_server_is_refused_with_a_warning_to_exit",
    _KEYCHAIN + "test_another_mailbox_key_is_refused",
    _CONNECTION + "test_a_changed_key_stops_every_call_and_is_never_adopted",
    _LIES + "test_a_server_that_is_no_longer_itself",
    _WALLET + "test_a_server_with_another_key_is_not_used",
)
_SOUND_BUT_OTHER = (
    _ROUNDS + "test_a_sound_tree_of_other_terms_is_refused",
    _ROUNDS + "test_a_sound_leaf_of_another_output_is_refused",
    _ROUNDS + "test_a_sound_leaf_of_another_funding_transaction_is_refused",
)
_BAD_LEAVES = _ROUND_LIES + "test_nothing_is_forfeited_for_bad_leaves"
_BAD_PROPOSAL = (
    _ROUNDS + "test_a_proposal_that_is_not_what_we_asked_for_is_refused",
    _ROUND_LIES + "test_a_bad_proposal_is_not_signed",
)
_HELD = "wallet/flows/test_held_near_expiry.py::"
_RESCUE = "wallet/flows/test_round_rescue.py::"
_KEPT_PREIMAGE = (
    _RESCUE + "test_a_server_that_says_nothing_for_ever",
    _RESCUE + "test_the_preimage_comes_before_the_input_is_on_the_chain",
    _RESCUE + "test_the_server_takes_the_forfeit_and_so_shows_the_preimage",
    _RESCUE + "test_a_forfeit_that_the_server_leaves_lying_is_ours_again",
)
_WRONG_PREIMAGE = (
    _ROUNDS + "test_a_wrong_preimage_unlocks_nothing",
    _ROUNDS + "test_a_leaf_that_is_not_signed_is_not_unlocked",
    _ROUND_LIES + "test_a_wrong_preimage_is_asked_for_again",
)
_UNSAFE_TERMS = (
    _CONNECTION + "test_unsafe_terms_are_refused",
    _CONNECTION + "test_malformed_info_is_refused",
    _CONNECTION + "test_an_unsorted_fee_table_is_refused",
    _CONNECTION + "test_another_network_is_refused",
    "ark/test_info.py::test_unsafe_terms_are_refused_on_mainnet_only",
    "ark/test_info.py::test_a_delta_that_could_overflow_heights_is_refused",
    "ark/test_info.py::test_a_server_without_exit_delta_or_nonces_is_never_safe",
    "ark/test_info.py::test_terms_that_hold_money_up_are_refused_everywhere",
    _GREEDY + "test_a_server_of_which_nothing_can_be_had_is_refused",
    _LIES + "test_no_wallet_with_such_a_server",
)
_BAD_INVOICE = (
    _LIGHTNING_LIES + "test_another_invoice_is_not_given_out",
    _LIGHTNING_LIES + "test_what_is_no_invoice_is_not_given_out",
    _RECEIVE_LIES + "test_another_invoice_is_not_given_out",
    _RECEIVE_LIES + "test_what_is_no_invoice_is_not_given_out",
)
_BAD_GRANT = (
    _LIGHTNING_LIES + "test_a_bad_grant_does_not_buy_the_preimage",
    _RECEIVE_LIES + "test_a_grant_that_is_not_as_it_should_be",
    _RECEIVE_LIES + "test_a_vtxo_that_the_wallet_has_had_buys_no_preimage",
    _RECEIVE_LIES + "test_a_fee_that_rises_after_the_invoice_is_out",
    _UNEXITABLE + "test_a_grant_of_nothing_but_dust",
    _UNEXITABLE + "test_a_chain_that_would_take_for_ever",
    _UNEXITABLE + "test_transactions_that_no_node_relays",
)
_BOLT12_OF_THE_OFFER = (
    _BOLT12 + "test_an_invoice_of_another_key_is_refused",
    _BOLT12 + "test_a_signature_of_another_key_is_refused",
    _BOLT12 + "test_a_flipped_bit_of_the_signature_is_refused",
    _BOLT12 + "test_another_amount_is_refused",
    _BOLT12 + "test_another_offer_of_the_same_issuer_is_refused",
    _BOLT12 + "test_an_offer_that_the_server_put_its_own_key_into_does_not_help",
)
_REBUILT = (
    "wallet/flows/test_round_recovery.py::test_a_round_that_cannot_be_ours_is_dropped",
    "wallet/flows/test_round_recovery.py::test_the_published_fee_or_five_percent_is_the_most",
    "wallet/flows/test_round_recovery.py::test_a_round_that_cannot_be_looked_up_is_told_again",
    _GREEDY + "test_a_round_that_nobody_asked_for_is_not_ours",
    _GREEDY + "test_a_recovery_lets_a_server_make_up_one_round_per_vtxo",
    _GREEDY + "test_a_round_does_not_shorten_a_life",
    _GREEDY + "test_a_round_gives_the_published_lifetime",
)
_OTHER_KEY_EXITS = "wallet/flows/test_exits.py::test_a_server_that_has_become_another_does_not_stop_exits"
_RECOVERY = "wallet/flows/test_hostile_recovery.py::"
_NO_NONCE_TWICE = (
    "crash/test_offchain.py::test_money_survives_a_kill",
    "crash/test_lightning.py::test_money_survives_a_kill",
    "ark/test_cosign.py::test_a_nonce_signs_once",
    "bitcoin/test_musig.py::test_secret_nonce_is_neither_copied_nor_pickled_nor_shown",
)

REGISTER: dict[str, Line] = {
    # --- 01: VTXOs
    "01.1": Line(
        "the anchor transaction has the txid of the anchor point",
        (
            _VALID + "test_a_substituted_anchor_cannot_detach_the_vtxo_from_its_exit_chain",
            _WALLET + "test_another_transaction_of_the_same_output_is_no_anchor",
            _MAILBOX + "test_a_substitute_for_the_anchor_proves_nothing",
        ),
    ),
    "01.2": Line(
        "the server's key is the pinned one",
        (
            _VALID + "test_a_board_of_the_attacker_alone_validates_and_is_refused_for_its_terms",
            _VALID + "test_terms_are_compared",
            "faults/test_bad_input.py::test_a_vtxo_of_another_server",
        ),
    ),
    "01.3": Line(
        "exit delta and expiry are the advertised ones; of what others made, the exit delta may have been",
        (
            _VALID + "test_terms_are_compared",
            _SOUND_BUT_OTHER[0],
            "ark/test_info.py::test_which_exit_deltas_a_wallet_may_have_agreed_to",
            _MAILBOX + "test_an_exit_delta_that_no_wallet_agrees_to_is_dropped",
            _MAILBOX + "test_an_exit_delta_that_the_server_had_before_is_kept",
            _WALLET + "test_an_exit_delta_that_no_wallet_agrees_to_is_not_imported",
            _RECOVERY + "test_an_exit_delta_that_no_wallet_agrees_to_is_no_money",
        ),
    ),
    "01.4": Line(
        "ours, as requested, and no id twice", (*_NEWCOMER, _ROUNDS + "test_the_same_vtxo_twice_is_refused")
    ),
    "01.5": Line("HTLCs: tag, hash, key, and time left", _BAD_GRANT),
    "01.6": Line(
        "the final signature is verified after every aggregation",
        (
            "ark/test_cosign.py::test_a_wrong_answer_is_refused_and_spends_the_nonce",
            "ark/test_cosign.py::test_an_answer_to_another_question_is_refused",
            "ark/test_cosign.py::test_the_user_signs_with_the_user_s_key_and_nonce",
            _ROUNDS + "test_a_bad_signature_anywhere_is_refused",
        ),
    ),
    "01.7": Line("the preimage fits before a leaf is money", _WRONG_PREIMAGE),
    "01.8": Line(
        "before a forfeit, a leaf lacks nothing but its preimage",
        (
            _VALID + "test_a_signed_leaf_that_only_lacks_its_preimage_may_be_forfeited_for",
            _VALID + "test_an_unsigned_leaf_may_not",
            _VALID + "test_a_wrong_leaf_signature_may_not",
            _VALID + "test_a_leaf_under_an_unsigned_tree_may_not",
            _SWAP + "test_a_leaf_without_its_signature_is_not",
            _BAD_LEAVES,
        ),
    ),
    "01.9": Line(
        "an output's position is within its transaction",
        (
            "ark/test_vtxo.py::test_impossible_objects_are_not_built",
            _VALID + "test_moving_the_continuing_output_is_refused",
        ),
    ),
    "01.10": Line(
        "tweaks of ancestors are opaque; what hangs on others is refreshed, and leaves if they move",
        (
            "wallet/exits/test_forced.py::test_a_payer_who_publishes_his_coin_does_not_get_it_back",
            "wallet/exits/test_forced.py::test_a_server_that_publishes_a_claimed_htlc_does_not_get_it",
            _VALID + "test_a_payment_to_us_signed_by_nobody_we_know_validates",
            "wallet/vtxos/test_selection.py::test_when_a_vtxo_must_or_should_be_refreshed",
        ),
    ),
    "01.11": Line(
        "the anchor is confirmed and unspent",
        (
            "wallet/vtxos/test_anchors.py::test_an_anchor_in_the_mempool_is_not_there_yet",
            "wallet/vtxos/test_anchors.py::test_what_was_published_of_our_way_is_no_harm",
            _MAILBOX + "test_what_hangs_off_nothing_on_the_chain_is_no_money_before_it_does",
            _MAILBOX + "test_what_others_have_begun_to_publish_is_still_received",
            _WALLET + "test_what_hangs_off_nothing_on_the_chain_is_not_imported",
            _RECOVERY + "test_what_hangs_off_nothing_on_the_chain_is_asked_for_again",
            _RECEIVE + "test_a_grant_waits_for_its_anchor",
            _RECEIVE + "test_a_grant_that_hangs_off_a_spent_output_buys_nothing",
            _ROUND_LIES + "test_nothing_is_forfeited_for_a_tree_that_was_taken",
            _WALLET + "test_what_the_chain_does_not_prove_is_not_imported",
            _MAILBOX + "test_an_anchor_that_stays_unknown_blocks_for_a_while_only",
            _MAILBOX + "test_nothing_is_forgotten_of_which_the_server_has_no_signatures",
        ),
    ),
    # --- 02: keys, addresses, mailboxes, recovery
    "02.1": Line(
        "the mnemonic is the database's", (_WALLET + "test_another_mnemonic_does_not_open_the_wallet",)
    ),
    "02.2": Line("both keys of the server are pinned", _OTHER_SERVER),
    "02.3": Line(
        "an address is of this network and server, and what is built for it has the pinned key",
        (
            _SEND + "test_what_is_built_for_an_address_has_the_pinned_key_of_the_server",
            "ark/test_address.py::test_the_network_is_checked_before_the_server",
            _SEND + "test_an_address_of_another_server_is_refused",
            "faults/test_bad_input.py::test_an_address_that_cannot_be_paid",
        ),
    ),
    "02.4": Line("what is received is validated in full", _NEWCOMER),
    "02.5": Line(
        "a body has the id that was asked for",
        (
            _CLIENT + "test_a_vtxo_is_the_one_that_was_asked_for",
            _CLIENT + "test_batched_lookups_believe_only_what_was_asked",
            _CLIENT + "test_batched_states_are_of_what_was_asked_for",
        ),
    ),
    "02.6": Line(
        "answers by extended key: index, progress, and how far one may advance us",
        (
            _CLIENT + "test_recovery_by_xpub",
            _KEYCHAIN + "test_each_match_opens_a_new_gap",
            _KEYCHAIN + "test_the_gap_has_a_limit",
            "wallet/recovery/test_xpub.py::test_what_is_revealed_for_an_answer",
            "wallet/recovery/test_xpub.py::test_a_server_that_always_has_more_is_not_asked_for_ever",
            _RECOVERY + "test_indexes_are_checked_and_keys_far_ahead_need_proof",
            _RECOVERY + "test_a_search_without_an_end_ends",
        ),
    ),
    "02.7": Line(
        "checkpoints grow, pages end",
        (
            _MAILBOX + "test_checkpoints_that_go_back_are_not_believed",
            _MAILBOX + "test_a_thousand_made_up_anchors_are_not_all_asked_for",
            _MAILBOX + "test_a_message_that_is_another_one_at_each_reading_blocks_no_longer",
            _RECOVERY + "test_a_mailbox_that_goes_back_or_never_ends_is_left",
        ),
    ),
    "02.8": Line(
        "preimages in notices fit",
        (
            _SEND_LIES + "test_a_wrong_preimage_in_the_mailbox_settles_nothing",
            _RECEIVE_LIES + "test_a_payment_that_we_never_released_cannot_be_settled",
            _LIGHTNING + "test_a_wrong_preimage_in_a_notice_settles_nothing",
            _LIGHTNING + "test_a_payment_that_we_never_released_is_not_called_settled",
        ),
    ),
    "02.9": Line(
        "invoices: amount, network, issuer",
        (
            *_BOLT12_OF_THE_OFFER,
            _LNURL + "test_another_amount_is_refused",
            _LNURL + "test_no_amount_is_refused",
            _LIGHTNING + "test_a_service_that_asks_for_another_amount_is_not_paid",
            _INVOICES + "test_an_invoice_of_another_network_is_not_paid",
            _INVOICES + "test_services_that_are_not_paid",
        ),
    ),
    "02.10": Line(
        "attestations are over data of our own; a challenge has 32 bytes",
        (
            "ark/test_attestations.py::test_a_challenge_of_another_length_is_not_signed",
            "ark/test_attestations.py::test_every_purpose_has_its_own_prefix_of_32_bytes",
        ),
    ),
    "02.11": Line(
        "SPENT is only said: a VTXO's body is kept",
        (
            _WALLET + "test_a_spent_vtxo_is_imported_as_spent",
            "wallet/recovery/test_judgement.py::test_what_is_spendable_here_is_never_given_up_for_a_word",
            "wallet/recovery/test_judgement.py::test_what_is_held_back_waits_for_an_answer",
            "faults/test_hostile_mailbox.py::test_a_server_that_calls_everything_spent_takes_nothing",
            _RECOVERY + "test_a_server_that_calls_everything_spent_is_not_believed_for_ever",
        ),
    ),
    "02.12": Line(
        "a participation rebuilt from a notice is ours and costs little",
        _REBUILT,
    ),
    "02.13": Line(
        "no secret in a log",
        (
            "faults/test_secrets.py::test_a_whole_life_is_logged_without_a_secret",
            "ark/test_mailbox.py::test_authorizations_do_not_print_themselves",
        ),
    ),
    # --- 03: boards, arkoor, offboards
    "03.1": Line(
        "a board is cosigned and stored before it is funded",
        (
            _LIES + "test_a_board_that_is_not_cosigned",
            _BOARD + "test_nothing_is_broadcast_for_a_wrong_cosignature",
            _BOARD + "test_a_kill_at_any_commit_boards_once_or_not_at_all",
        ),
    ),
    "03.2": Line("a board's terms", (*_UNSAFE_TERMS, _BOARD + "test_less_than_the_server_wants_is_refused")),
    "03.3": Line(
        "counts and every partial signature, before we sign",
        (
            _ARKOOR + "test_a_changed_partial_signature_is_refused_before_we_sign",
            _ARKOOR + "test_a_bad_part_is_found_before_any_part_is_signed",
            _ARKOOR + "test_answers_of_another_length_are_refused",
            _ARKOOR + "test_a_missing_part_is_refused",
            _LIES + "test_a_payment_that_is_not_cosigned",
        ),
    ),
    "03.4": Line("no secret nonce twice, none stored", _NO_NONCE_TWICE),
    "03.5": Line("a received payment is validated against our own chain source", _NEWCOMER),
    "03.6": Line(
        "an offboard pays the amount to the script, with the connector",
        (
            _OFFBOARD_LIES + "test_nothing_is_forfeited_for_another_transaction",
            _OFFBOARD_LIES + "test_a_malformed_proposal_is_refused",
        ),
    ),
    "03.7": Line(
        "the finished offboard is the same transaction, signed",
        (_OFFBOARD_LIES + "test_what_the_forfeits_were_for_is_asked_for_until_it_is_there",),
    ),
    "03.8": Line(
        "after forfeits, inputs are released for proof only",
        (
            _OFFBOARDS + "test_what_proves_that_the_server_never_took_the_forfeits",
            _OFFBOARDS + "test_a_taken_forfeit_keeps_its_inputs_until_the_transaction_appears",
            _OFFBOARD_LIES + "test_a_proposal_that_lies_after_forfeits_releases_nothing",
        ),
    ),
    "03.9": Line(
        "the destination is standard before the split",
        (_OFFBOARDS + "test_nothing_is_split_for_a_script_that_the_server_would_not_pay_to",),
    ),
    "03.10": Line(
        "we compute the fee, and refuse what eats the amount",
        (
            "ark/test_fees.py::test_what_is_left_after_the_fee_matches_upstream",
            _BOARD + "test_a_fee_that_leaves_nothing_or_dust_is_not_paid",
            _BOARD + "test_what_is_left_may_be_as_little_as_the_dust_limit",
            _LIES + "test_a_server_that_signs_for_another_fee",
            _BOARD + "test_the_fee_estimate_is_the_fee",
        ),
    ),
    # --- 04: rounds
    "04.1": Line("safe terms", _UNSAFE_TERMS),
    "04.2": Line(
        "a proposal is as it must be, or the attempt fails",
        (*_BAD_PROPOSAL, _ROUNDS + "test_a_tree_too_high_for_our_nonces_is_refused"),
    ),
    "04.3": Line("our leaf has our cosign key", _BAD_PROPOSAL),
    "04.4": Line(
        "a finished round: same txid, all signatures, our points",
        (
            _ROUNDS + "test_another_funding_transaction_is_refused",
            _ROUNDS + "test_a_wrong_number_of_signatures_is_refused",
            _ROUNDS + "test_our_leaves_are_validated_however_they_were_made",
            _ROUNDS + "test_a_bad_signature_anywhere_is_refused",
            _ROUND_LIES + "test_a_bad_end_of_a_round_is_looked_up",
        ),
    ),
    "04.5": Line(
        "new VTXOs wait for the hash that we forfeit to",
        (
            _ROUNDS + "test_a_leaf_on_another_hash_than_we_forfeit_to_is_refused",
            _SWAP + "test_a_leaf_on_another_hash_is_not",
            _BAD_LEAVES,
        ),
    ),
    "04.6": Line(
        "the leaf's key and signature, before forfeits",
        (
            _ROUNDS + "test_a_leaf_whose_key_is_not_the_policy_s_is_refused",
            _SWAP + "test_a_leaf_that_opens_to_another_key_is_not",
            _SWAP + "test_a_leaf_without_its_signature_is_not",
            _ROUNDS + "test_a_leaf_signature_is_verified_before_it_is_kept",
            _ROUND_LIES + "test_a_bad_cosignature_of_a_leaf_stops_the_swap",
        ),
    ),
    "04.7": Line(
        "anchored in the funding transaction, which is deep enough",
        (
            _SOUND_BUT_OTHER[2],
            _SWAP + "test_a_leaf_of_a_tree_at_another_output_is_not",
            _SWAP + "test_the_block_that_it_is_in_is_its_first_confirmation",
            _SWAP + "test_the_mempool_is_enough_only_if_nothing_is_asked_for",
            _ROUND_LIES + "test_nothing_is_forfeited_without_confirmations",
        ),
    ),
    "04.8": Line(
        "delegated: what was asked for, in order, once",
        (
            *_SOUND_BUT_OTHER,
            _BAD_LEAVES,
            _ROUND_LIES + "test_nothing_is_forfeited_for_less_than_all_leaves",
            _ROUNDS + "test_a_leaf_that_is_not_what_we_asked_for_is_refused",
            _ROUNDS + "test_the_number_of_vtxos_must_be_right",
            _ROUNDS + "test_the_order_of_vtxos_must_be_ours",
            _ROUNDS + "test_the_same_vtxo_twice_is_refused",
        ),
    ),
    "04.9": Line(
        "time for two exits before forfeits, and these in time",
        (
            _ROUNDS + "test_two_exits_must_fit_before_the_new_coin_expires",
            _ROUND_LIES + "test_nothing_is_forfeited_without_time_for_two_exits",
            "wallet/test_round_rescue.py::"
            "test_what_is_forfeited_exits_while_a_preimage_that_is_shown_late_is_worth_something",
            _RESCUE + "test_inputs_that_were_not_forfeited_leave_in_time_as_well",
        ),
    ),
    "04.10": Line(
        "forfeit nonces are counted, the preimage fits",
        (
            _ROUND_LIES + "test_a_wrong_number_of_forfeit_nonces_stops_the_swap",
            *_WRONG_PREIMAGE,
            *_KEPT_PREIMAGE,
        ),
    ),
    "04.11": Line(
        "the fee is ours to name",
        (
            "ark/test_fees.py::test_refresh_fees_match_upstream",
            _ROUNDS + "test_a_proposal_that_is_not_what_we_asked_for_is_refused",
            *_REBUILT,
        ),
    ),
    "04.12": Line(
        "nonces once, in memory only",
        (
            *_NO_NONCE_TWICE,
            "wallet/rounds/test_machine.py::test_what_is_stored_of_an_attempt_holds_no_secret",
        ),
    ),
    # --- 05: Lightning; 1-7 sending, 8-13 receiving
    "05.1": Line(
        "invoices: signature, network, amount, and the offer they answer",
        (
            "wallet/payments/test_request.py::test_an_invoice_with_a_wrong_signature_is_none",
            "bitcoin/test_bolt11.py::test_every_changed_character_is_noticed",
            _INVOICES + "test_an_invoice_of_another_network_is_not_paid",
            _INVOICES + "test_offers_that_are_not_asked_about",
            _INVOICES + "test_an_old_invoice_for_an_offer_is_not_paid",
            _INVOICES + "test_the_amount_of_a_payment",
            *_BOLT12_OF_THE_OFFER,
        ),
    ),
    "05.2": Line(
        "an LNURL's invoice is over the amount",
        (
            _LNURL + "test_another_description_is_refused",
            _LNURL + "test_another_amount_is_refused",
            _LNURL + "test_no_amount_is_refused",
            _LIGHTNING + "test_a_service_that_asks_for_another_amount_is_not_paid",
        ),
    ),
    "05.3": Line(
        "HTLCs and change are as we built them",
        (
            _ARKOOR + "test_an_answer_for_other_amounts_is_refused",
            _LIGHTNING_LIES + "test_htlcs_that_are_not_cosigned_are_not_paid_with",
            _SEND_LIES + "test_htlcs_that_are_not_cosigned_are_not_paid_with",
            _SEND_LIES + "test_what_comes_back_is_proven_before_it_counts",
        ),
    ),
    "05.4": Line(
        "no payment is done without its preimage",
        (
            _LIGHTNING_LIES + "test_a_wrong_preimage_pays_nothing",
            _SEND_LIES + "test_a_wrong_preimage_settles_nothing",
            _SEND_LIES + "test_a_wrong_preimage_in_the_mailbox_settles_nothing",
            _SEND_LIES + "test_a_wrong_preimage_that_somebody_noted_settles_nothing",
            _SENDING + "test_success_without_a_preimage_is_none",
            _LIGHTNING + "test_a_wrong_preimage_in_a_notice_settles_nothing",
        ),
    ),
    "05.5": Line(
        "the fee has a bound",
        (
            _SENDING + "test_an_absurd_fee_is_not_paid",
            _SEND_LIES + "test_the_fee_is_what_the_schedule_said_when_it_began",
            _LIGHTNING + "test_a_fee_that_nobody_would_pay_is_not_paid",
        ),
    ),
    "05.6": Line(
        "the record of a paid invoice comes first, and stays",
        (
            "wallet/store/test_repositories.py::test_payments_are_permanent_and_the_first_record_wins",
            _SENDING + "test_what_is_paid_is_not_paid_again",
            _SEND_LIES + "test_what_is_paid_while_a_payment_begins_is_not_paid_again",
            _LIGHTNING + "test_what_was_paid_is_not_paid_again_whatever_the_server_forgets",
        ),
    ),
    "05.7": Line(
        "inputs outlive the HTLC",
        (
            _SENDING + "test_inputs_that_outlive_the_htlcs_are_preferred",
            _SENDING + "test_htlcs_exit_before_the_tree_below_them_expires",
            "wallet/lightning/test_send_states.py::"
            "test_htlcs_exit_in_time_but_trees_give_a_few_blocks_at_least",
            _LIGHTNING + "test_inputs_outlive_the_htlcs_that_they_become",
        ),
    ),
    "05.8": Line("the invoice is over what we asked", _BAD_INVOICE),
    "05.9": Line("each granted VTXO", _BAD_GRANT),
    "05.10": Line(
        "the window is open when the preimage goes out",
        (
            _RECEIVE + "test_a_grant_that_came_too_late_is_abandoned",
            _RECEIVE + "test_nothing_is_revealed_while_the_height_is_not_known",
            _RECEIVE + "test_the_window_is_looked_at_by_a_height_of_this_moment",
            _LIGHTNING + "test_the_preimage_is_kept_when_the_time_to_use_it_has_passed",
        ),
    ),
    "05.11": Line(
        "the preimage is shown nowhere before",
        (
            _RECEIVE_LIES + "test_the_preimage_is_shown_nowhere",
            _RECEIVE_LIES + "test_a_server_that_shouts_the_preimage_is_not_repeated",
            _LIGHTNING + "test_the_preimage_stays_where_it_is_until_the_grant_is_there",
        ),
    ),
    "05.12": Line(
        "the claim's outputs",
        (
            _LIGHTNING_LIES + "test_a_claim_that_is_not_cosigned_is_repeated",
            _RECEIVE_LIES + "test_a_cosignature_that_is_wrong_is_not_used",
            _RECEIVE_LIES + "test_what_a_claim_makes_is_proven_before_it_counts",
        ),
    ),
    "05.13": Line(
        "a fee that makes no sense",
        (
            _RECEIVE_LIES + "test_an_amount_that_does_not_add_up_is_passed_over",
            _LIGHTNING + "test_a_fee_that_makes_no_sense_is_not_in_the_history",
        ),
    ),
    # --- 06: exits, on chain
    "06.1": Line(
        "a chain is validated in full when received; at the exit, that it can be broadcast",
        (
            *_NEWCOMER,
            _VALID + "test_standardness_agrees_with_upstream",
            _ROUNDS + "test_what_hangs_beside_our_leaf_must_relay_as_well",
            _ROUNDS + "test_a_leaf_is_not_taken_at_any_depth",
            _ROUNDS + "test_a_delegated_leaf_must_be_one_that_can_exit",
            "wallet/exits/test_service.py::test_a_chain_that_cannot_be_broadcast_does_not_start",
            "wallet/exits/test_service.py::test_an_error_leaves_the_earlier_ones_started",
        ),
    ),
    "06.2": Line(
        "exits begin early enough",
        (
            _BOARD + "test_a_board_that_is_never_registered_is_exited_before_it_expires",
            "faults/test_exits.py::test_an_exit_that_comes_too_late_ends_as_swept",
            "wallet/exits/test_forced.py::test_below_the_expiry_what_is_half_on_the_chain_leaves_in_time",
            _HELD + "test_what_nobody_has_got_anything_for_leaves_before_it_expires",
            _HELD + "test_what_was_paid_for_on_the_chain_does_not_leave",
            _HELD + "test_the_change_of_a_payment_that_is_not_delivered_leaves",
        ),
    ),
    "06.3": Line(
        "swept or spent is deep, and looked up",
        (
            "wallet/exits/test_reorgs.py::test_a_sweep_is_believed_when_it_is_seven_blocks_deep",
            "wallet/exits/test_reorgs.py::test_a_sweep_that_waits_in_the_mempool_is_no_sweep",
            "wallet/exits/test_reorgs.py::test_a_failed_lookup_is_no_sweep",
            "wallet/exits/test_lies.py::test_a_sweep_that_does_not_spend_the_input",
            "wallet/exits/test_lies.py::test_one_wrong_answer_about_the_input_ends_nothing",
            "wallet/exits/test_lies.py::test_who_names_spenders_must_name_one",
        ),
    ),
    "06.4": Line(
        "the node's answer about each transaction",
        (
            "chain/test_broadcast.py::test_parent_decides_before_its_child",
            "chain/test_broadcast.py::test_no_result_at_all_is_other",
            "chain/test_broadcast.py::test_unreadable_answer_says_nothing",
        ),
    ),
    "06.5": Line(
        "a child is as planned, its rate has a bound, and its parent is in an exit of ours",
        (
            "onchain/test_cpfp.py::test_plans_add_up",
            "onchain/wallet_cases.py::test_a_child_that_is_not_the_one_planned_is_not_taken",
            "wallet/exits/test_driver.py::test_the_child_that_is_broadcast_is_the_one_that_was_planned",
            "wallet/exits/test_driver.py::test_no_estimate_makes_us_pay_more_than_the_cap",
            "wallet/exits/test_driver.py::test_nothing_pays_for_a_transaction_that_is_in_no_exit_of_ours",
        ),
    ),
    "06.6": Line(
        "the chain source: network, version, best chain",
        (
            "chain/source_cases.py::test_another_network_is_refused",
            "chain/test_bitcoind.py::test_old_node_is_refused",
            "onchain/test_sync.py::test_confirmation_in_a_foreign_block_is_not_believed",
            "chain/test_esplora.py::test_a_block_that_is_not_in_the_best_chain_confirms_nothing",
        ),
    ),
    "06.7": Line(
        "a claim spends our own outputs to this network, by leaves that are theirs",
        (
            "api/test_exits.py::test_claiming",
            "api/test_exits.py::test_a_claim_goes_to_an_address_of_this_network_or_nowhere",
            "wallet/exits/test_service.py::test_claiming_all_takes_only_what_is_claimable",
            "ark/test_claim.py::test_a_hash_lock_on_an_aggregate_key_is_never_ours",
            "ark/test_claim.py::test_nothing_is_signed_for_an_output_that_is_not_open_to_the_clause",
        ),
    ),
    "06.8": Line("scripts are built from the VTXO's own server key", (_OTHER_KEY_EXITS,)),
    # --- 07: REST
    "07.1": Line("the server is the one that we know", _OTHER_SERVER),
    "07.2": Line(
        "the chain source is of this network",
        (
            "chain/source_cases.py::test_another_network_is_refused",
            "chain/test_esplora.py::test_tip_that_is_no_number_is_refused",
        ),
    ),
    "07.3": Line(
        "Ark addresses",
        (
            "ark/test_address.py::test_only_pubkey_policies_are_paid",
            "ark/test_address.py::test_an_address_with_only_unknown_deliveries_is_not",
            "faults/test_bad_input.py::test_an_address_that_cannot_be_paid",
            "faults/test_bad_input.py::test_a_damaged_address",
        ),
    ),
    "07.4": Line(
        "bitcoin addresses are of this network",
        ("wallet/payments/test_request.py::test_the_network_of_a_bitcoin_address_is_checked",),
    ),
    "07.5": Line("a receive's invoice is what was asked for", _BAD_INVOICE),
    "07.6": Line(
        "LNURL: amount, length, https, no address of this machine",
        (
            _LNURL + "test_another_amount_is_refused",
            _LNURL + "test_a_comment_is_measured_in_bytes",
            _LNURL + "test_urls_that_are_not_asked",
            _LNURL + "test_nothing_is_asked_in_the_network_of_this_machine",
            _LNURL + "test_a_service_cannot_send_us_into_our_network",
        ),
    ),
    "07.7": Line(
        "imported VTXOs",
        (
            _WALLET + "test_what_is_not_ours_is_not_imported",
            _WALLET + "test_what_is_not_backed_is_not_imported",
            _WALLET + "test_a_vtxo_with_a_wrong_signature_is_not_imported",
            _WALLET + "test_the_status_check_may_be_skipped",
            _LIES + "test_an_import_that_the_server_calls_unusable",
        ),
    ),
    "07.8": Line(
        "tokens and tickets",
        (
            "api/test_auth.py::test_one_different_bit_is_another_token",
            "api/test_auth.py::test_other_headers_are_refused",
            "api/test_auth.py::test_secrets_are_compared_in_constant_time",
            "api/test_notifications.py::test_a_ticket_works_once",
            "api/test_notifications.py::test_a_ticket_lives_ten_minutes",
        ),
    ),
    "07.9": Line("fees are computed here", (_LIES + "test_a_server_that_signs_for_another_fee",)),
    "07.10": Line(
        "without authentication: Host and Origin",
        (
            "api/test_open_doors.py::test_who_may_change_something_without_authentication",
            "api/test_open_doors.py::test_a_rebound_name_may_not_even_read",
        ),
    ),
    "07.11": Line(
        "files of secrets",
        (
            "test_datadir.py::test_a_mnemonic_is_not_written_through_a_link",
            "test_datadir.py::test_a_new_directory_is_private_whatever_the_umask",
            "test_config.py::test_any_value_survives_the_file",
            "faults/test_secrets.py::test_files_are_their_owner_s_alone",
        ),
    ),
    "07.12": Line(
        "a metadata patch reaches nothing of the wallet's",
        ("wallet/test_movements.py::test_a_patch_does_not_reach_what_the_wallet_wrote",),
    ),
    # --- 08: gRPC
    "08.1": Line("bounds of the server's terms", _UNSAFE_TERMS),
    "08.2": Line("both keys before any operation", _OTHER_SERVER),
    "08.3": Line(
        "lengths and counts of every answer",
        (
            _CLIENT + "test_malformed_board_answers",
            _CLIENT + "test_malformed_arkoor_answers",
            _CLIENT + "test_malformed_round_events_end_the_stream",
            _CLIENT + "test_forfeit_nonces_are_one_per_vtxo",
            _CLIENT + "test_a_prepared_offboard_has_a_nonce_per_input",
        ),
    ),
    "08.4": Line("every VTXO, wherever it comes from", (*_NEWCOMER, *_BAD_GRANT, _BAD_LEAVES)),
    "08.5": Line(
        "preimages fit; a status is a hint",
        (
            *_WRONG_PREIMAGE,
            _CLIENT + "test_an_unknown_spend_state_is_never_taken_for_spendable",
            _CLIENT + "test_an_unclear_payment_status_is_no_success",
        ),
    ),
    "08.6": Line("invoices of both kinds", (*_BAD_INVOICE, *_BOLT12_OF_THE_OFFER)),
    "08.7": Line(
        "an offboard's transaction", (_OFFBOARD_LIES + "test_nothing_is_forfeited_for_another_transaction",)
    ),
    "08.8": Line(
        "recovery makes progress, keys are derived here",
        (
            _CLIENT + "test_recovery_by_xpub",
            _RECOVERY + "test_indexes_are_checked_and_keys_far_ahead_need_proof",
            _RECOVERY + "test_a_search_without_an_end_ends",
        ),
    ),
    "08.9": Line(
        "checkpoints go forward, and one bad message stops nothing",
        (
            _MAILBOX + "test_checkpoints_that_go_back_are_not_believed",
            _LIES + "test_bytes_that_are_no_vtxo",
            _MAILBOX + "test_messages_that_bring_nothing_are_acknowledged",
            "wallet/store/test_repositories.py::test_the_checkpoint_only_grows",
        ),
    ),
    "08.10": Line(
        "messages have a largest size; announcements are text of a stranger",
        (
            _CONNECTION + "test_an_answer_larger_than_the_library_allows_by_default_arrives",
            _CONNECTION + "test_an_answer_beyond_the_largest_size_is_refused",
            _CONNECTION + "test_a_public_service_announcement_is_logged_as_untrusted_text",
        ),
    ),
    # --- 09: daemon and state
    "09.1": Line("every mailbox VTXO, before it is stored", _NEWCOMER),
    "09.2": Line(
        "a participation that the server tells of",
        _REBUILT,
    ),
    "09.3": Line(
        "nothing is settled without proof",
        (
            _RECEIVE_LIES + "test_a_payment_that_we_never_released_cannot_be_settled",
            _RECEIVE_LIES + "test_a_payment_that_never_came",
            _MAILBOX + "test_hints_about_lightning_are_acknowledged_whatever_comes_of_them",
        ),
    ),
    "09.4": Line(
        "what comes twice counts once",
        (
            _MAILBOX + "test_a_spent_vtxo_that_is_delivered_again_stays_spent",
            _MAILBOX + "test_two_readers_at_once_make_one_movement",
            "wallet/store/test_vtxos.py::test_storing_again_changes_nothing",
        ),
    ),
    "09.5": Line(
        "one coin, one taker", ("wallet/store/test_vtxos.py::test_of_many_rivals_one_gets_the_coin",)
    ),
    "09.6": Line("exited is for good", ("wallet/test_vtxo_states.py::test_nothing_leaves_exited",)),
    "09.7": Line(
        "rounds that the daemon joins by itself",
        (
            *_BAD_PROPOSAL,
            _GREEDY + "test_nothing_is_refreshed_unasked_at_bad_terms",
            _GREEDY + "test_a_server_that_takes_all_as_a_fee",
            _GREEDY + "test_what_is_left_of_a_refresh_costs_no_more_than_was_agreed",
        ),
    ),
    "09.8": Line("another server key stops everything but exits", (*_OTHER_SERVER, _OTHER_KEY_EXITS)),
    "09.9": Line(
        "a huge checkpoint hides nothing for ever",
        (
            _MAILBOX + "test_checkpoints_that_go_back_are_not_believed",
            _MAILBOX + "test_checkpoints_of_the_future_are_not_believed",
            _MAILBOX + "test_all_around_a_message_of_the_future_is_received_once",
            _RECOVERY + "test_messages_of_the_future_stop_no_recovery",
            "faults/test_hostile_mailbox.py::test_messages_with_checkpoints_that_cannot_be",
            "wallet/store/test_repositories.py::test_checkpoints_that_cannot_be_are_refused",
        ),
    ),
    "09.10": Line(
        "a metadata patch touches metadata",
        ("wallet/test_movements.py::test_a_metadata_patch_touches_nothing_else",),
    ),
    # --- 10: what a server can do
    "10.1": Line(
        "wrong signatures, transactions, VTXOs",
        (
            _LIES + "test_a_board_that_is_not_cosigned",
            _LIES + "test_a_payment_that_is_not_cosigned",
            _OFFBOARD_LIES + "test_nothing_is_forfeited_for_another_transaction",
            *_NEWCOMER,
        ),
    ),
    "10.2": Line(
        "OK and forgotten",
        (
            "wallet/flows/test_round_trouble.py::test_a_delegation_that_the_wallet_has_forgotten_is_found_by_mail",
            "wallet/rounds/test_machine.py::test_a_delegated_participation_that_is_forgotten_is_repeated_up_to_a_limit",
            _RECEIVE + "test_a_server_that_forgot_an_invoice_may_remember",
        ),
    ),
    "10.3": Line(
        "a server that lost its memory",
        (
            "wallet/flows/test_round_crashes.py::test_a_server_restarted_after_each_event_of_a_round",
            "wallet/flows/test_round_crashes.py::test_a_server_restarted_in_the_swap",
            _OFFBOARDS + "test_a_server_killed_before_it_books_is_asked_anew",
        ),
    ),
    "10.4": Line(
        "a refusal after a lost success proves nothing",
        (
            _OFFBOARDS + "test_a_lost_answer_is_found_on_the_chain",
            _RECEIVE_LIES + "test_a_refusal_after_the_preimage_is_out_undoes_nothing",
        ),
    ),
    "10.5": Line(
        "confirmations are for us to wait for",
        (
            _ROUND_LIES + "test_nothing_is_forfeited_without_confirmations",
            "wallet/flows/test_round_crashes.py::test_a_reorg_before_the_swap_delays_it",
        ),
    ),
    "10.6": Line(
        "expiry is for us to watch",
        (
            _RECEIVE + "test_blocks_between_grant_and_claim_are_no_harm",
            "wallet/flows/test_automatic_refresh.py::test_a_vtxo_left_alone_is_refreshed_before_it_expires",
        ),
    ),
}
