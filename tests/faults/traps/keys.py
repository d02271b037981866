"""Sheet 02 §11: keys, addresses, mailboxes, recovery, URIs."""

from tests.faults.register import Line

_KEYS = "ark/test_wallet_keys.py::"
_ADDRESS = "ark/test_address.py::"
_MAILBOX = "wallet/flows/test_mailbox.py::"
_URIS = "wallet/payments/test_bip321.py::"
_OPTIONS = "wallet/payments/test_options.py::"
_RECOVERY = "wallet/flows/test_hostile_recovery.py::"

TRAPS = {
    "02 §11.1": Line(
        "the fingerprint is not the master key's",
        (_KEYS + "test_the_fingerprint_is_not_that_of_the_master_key",),
    ),
    "02 §11.2": Line("which paths are hardened", (_KEYS + "test_wallet_keys_match_upstream",)),
    "02 §11.3": Line(
        "blinding takes the mailbox key of the server, the ark id its other key",
        (
            _ADDRESS + "test_addresses_of_a_wallet_match_upstream",
            _ADDRESS + "test_swapping_the_servers_two_keys_changes_both_parts",
        ),
    ),
    "02 §11.4": Line(
        "a shared point is not hashed",
        ("ark/test_mailbox.py::test_blinding_matches_upstream_and_is_undone_by_the_server",),
    ),
    "02 §11.5": Line(
        "attestations differ in the order of bytes",
        (
            "ark/test_attestations.py::test_rounds_write_big_endian_and_payments_little_endian",
            "ark/test_attestations.py::test_messages_match_upstream",
        ),
    ),
    "02 §11.6": Line(
        "pages cut groups and say that nothing is left",
        (
            _MAILBOX + "test_groups_that_pages_cut_arrive_whole",
            _MAILBOX + "test_a_single_payment_takes_two_reads",
            "devnet/ark_server/vtxos/test_mailboxes.py::test_pages_of_the_real_server_lose_the_tail_of_a_post",
        ),
    ),
    "02 §11.7": Line(
        "who looks its keys up in the store drops payments after a recovery, and while the chain is away",
        (
            _MAILBOX + "test_a_payment_to_an_address_of_an_earlier_life_is_found",
            _MAILBOX + "test_a_chain_source_that_is_down_drops_nothing",
        ),
    ),
    "02 §11.8": Line(
        "recovered HTLCs are no money to pay with",
        (
            "wallet/recovery/test_judgement.py::test_a_lightning_payments_vtxo_is_kept_out_of_payments",
            "wallet/vtxos/test_selection.py::test_recovered_htlc_vtxos_do_not_pay",
            "wallet/flows/test_recovery_lightning.py::test_a_payment_under_way_that_fails_comes_back",
        ),
    ),
    "02 §11.9": Line(
        "one unknown id fails the recovery posts of twenty",
        (
            _MAILBOX + "test_one_id_that_the_server_refuses_does_not_spoil_the_others",
            "wallet/flows/test_board.py::test_a_registered_board_is_in_the_recovery_mailbox",
        ),
    ),
    "02 §11.10": Line(
        "somebody else may have posted the id: the payments' mailbox is read as well",
        (
            _MAILBOX + "test_a_payment_to_an_address_of_an_earlier_life_is_found",
            "devnet/ark_server/vtxos/test_mailboxes.py::test_recovery_ids_are_kept_once",
            "wallet/flows/test_backup.py::test_a_backup_of_a_working_wallet_is_the_wallet",
        ),
    ),
    "02 §11.11": Line(
        "a wallet that is made without its server still recovers",
        (
            _RECOVERY + "test_a_server_that_is_away_is_asked_when_it_is_back",
            "wallet/flows/test_recovery.py::test_without_the_server_coins_are_found_all_the_same",
            "daemon/test_runtime.py::test_a_wallet_from_words_is_a_recovery",
        ),
    ),
    "02 §11.12": Line(
        "a new wallet has nothing to recover, and is made all the same",
        (
            "daemon/test_runtime.py::test_a_new_wallet_is_loaded_and_working",
            "wallet/flows/test_wallet.py::test_a_new_wallet_is_pinned_to_its_server",
        ),
    ),
    "02 §11.13": Line(
        "bits that are left over make no other address",
        (_ADDRESS + "test_padding_bits_do_not_make_another_address",),
    ),
    "02 §11.14": Line(
        "capitals are legal, a mixture is not",
        (
            _ADDRESS + "test_texts_are_parsed_or_refused_like_upstream",
            "wallet/flows/test_arkoor_send.py::test_an_address_in_capitals_is_the_one_in_small_letters",
        ),
    ),
    "02 §11.15": Line(
        "an address without delivery can be paid",
        (
            _ADDRESS + "test_an_address_without_delivery_is_payable",
            "wallet/flows/test_arkoor_send.py::test_an_address_without_a_mailbox_is_paid_and_nobody_is_told",
        ),
    ),
    "02 §11.16": Line(
        "a URI that fails has used up an address",
        (
            "api/test_lightning_sends.py::test_what_has_no_capitals_is_refused_after_it_was_made",
            "api/test_lightning_sends.py::test_an_invoice_that_fails_fails_the_uri",
        ),
    ),
    "02 §11.17": Line(
        "hex is a script that nobody pays", (_OPTIONS + "test_hex_is_a_script_that_is_not_paid",)
    ),
    "02 §11.18": Line("an invoice of testnet is none of signet", (_OPTIONS + "test_networks",)),
    "02 §11.19": Line(
        "a URI's body is of mainnet; others are parameters",
        (_URIS + "test_what_is_refused", _URIS + "test_forms_that_are_read"),
    ),
    "02 §11.20": Line(
        "checkpoints are larger than floats are exact",
        (
            "wallet/store/test_repositories.py::test_the_checkpoint_only_grows",
            "api/test_json_body.py::test_integers_are_exact_up_to_their_width",
        ),
    ),
    "02 §11.21": Line(
        "an authorization is of one mailbox, and of the moment",
        (
            "ark/test_mailbox.py::test_an_authorization_of_one_mailbox_does_not_open_another",
            "wallet/mailbox/test_pages.py::test_each_read_is_authorized_at_its_moment",
        ),
    ),
    "02 §11.22": Line(
        "a signature is blind to the key's parity",
        ("bitcoin/test_taproot.py::test_signed_messages_are_upstreams",),
    ),
    "02 §11.23": Line(
        "keys of 65 bytes verify messages",
        ("api/test_other_routes.py::test_an_uncompressed_public_key_is_one",),
    ),
    "02 §11.24": Line(
        "words in capitals are none",
        (
            "bitcoin/test_bip32.py::test_bad_words_are_refused_in_upstreams_words",
            "bitcoin/test_keys.py::test_mnemonics_are_read_as_upstream_reads_them",
        ),
    ),
    "02 §11.25": Line(
        "a payment that fails for want of money uses no key up",
        (
            "wallet/flows/test_arkoor_send.py::test_more_than_there_is_is_refused",
            "wallet/test_keychain.py::test_peeking_takes_nothing",
        ),
    ),
}
