"""Sheet 01 §18: VTXOs, byte by byte."""

from tests.faults.register import Line

_VTXO = "ark/test_vtxo.py::"
_VALID = "ark/test_validation.py::"
_POLICY = "ark/test_policy.py::"
_TREE = "ark/test_tree.py::"
_ENCODINGS = _VTXO + "test_encodings_are_upstream_s_byte_for_byte"
_SCRIPT_ENGINE = _VALID + "test_every_exit_transaction_satisfies_bitcoin_s_script_engine"
_SHAPE = _VTXO + "test_every_exit_transaction_has_the_stated_shape"

TRAPS = {
    "01 §18.1": Line(
        "keys are sorted by 33 bytes",
        (
            "bitcoin/test_musig.py::test_keys_aggregate_in_any_order",
            _POLICY + "test_the_keys_of_the_worked_examples_combine",
        ),
    ),
    "01 §18.2": Line(
        "one key is not its own aggregate",
        (
            "bitcoin/test_musig.py::test_a_single_key_is_not_its_own_aggregate",
            _POLICY + "test_the_keys_of_the_worked_examples_combine",
        ),
    ),
    "01 §18.3": Line(
        "no signature is 64 zeros",
        (_ENCODINGS, _VTXO + "test_fields_are_upstream_s", _VALID + "test_an_unsigned_leaf_may_not"),
    ),
    "01 §18.4": Line(
        "the flag of an unlock: 0 is a preimage",
        (_ENCODINGS, _VTXO + "test_fields_are_upstream_s", _VALID + "test_unlocking_completes_the_leaf"),
    ),
    "01 §18.5": Line(
        "the number of outputs leaves out the fee anchor", (_SHAPE, _VTXO + "test_255_outputs_are_the_most")
    ),
    "01 §18.6": Line(
        "siblings are in the order of the transaction",
        (
            _SHAPE,
            _VALID + "test_swapped_siblings_are_refused",
            _VTXO + "test_exit_transactions_are_upstream_s",
        ),
    ),
    "01 §18.7": Line(
        "sequence 0, version 3, the anchor last; a forfeit's sequence is another",
        (_SHAPE, "ark/test_rounds.py::test_the_worked_forfeit"),
    ),
    "01 §18.8": Line(
        "the expiry leaf has the long-term key of the server, cosigning an ephemeral one",
        (_TREE + "test_nodes_are_upstream_s", _TREE + "test_the_worked_tree_of_seven"),
    ),
    "01 §18.9": Line(
        "a hash-locked signature is under the untweaked aggregate",
        (
            _VTXO + "test_the_worked_leaf",
            _SCRIPT_ENGINE,
            _VALID + "test_a_signed_leaf_that_only_lacks_its_preimage_may_be_forfeited_for",
        ),
    ),
    "01 §18.10": Line(
        "an arkoor tweak is that of the whole taproot that is spent",
        (_VTXO + "test_the_worked_arkoor_chain_commits_to_the_spent_policies", _SCRIPT_ENGINE),
    ),
    "01 §18.11": Line(
        "small numbers are opcodes, 128 to 255 are padded",
        (
            "ark/test_clause.py::test_numbers_are_pushed_in_the_shortest_way",
            "bitcoin/test_script.py::test_numbers_are_pushed_minimally",
        ),
    ),
    "01 §18.12": Line(
        "OpenSSL may lack RIPEMD-160", ("bitcoin/test_hashes.py::test_ripemd160_does_not_need_openssl",)
    ),
    "01 §18.13": Line(
        "the delays of HTLCs",
        (
            "ark/test_clause.py::test_clauses_match_upstream",
            _POLICY + "test_worked_examples",
            "wallet/exits/test_service.py::test_an_outgoing_htlc_is_claimable_after_its_timeout",
        ),
    ),
    "01 §18.14": Line(
        "tags 08 and 09, kinds without a suffix are v0",
        (_POLICY + "test_fields_are_encoded_in_order", _POLICY + "test_policies_match_upstream"),
    ),
    "01 §18.15": Line(
        "a receive's expiry comes before its delta", (_POLICY + "test_fields_are_encoded_in_order",)
    ),
    "01 §18.16": Line(
        "hashes are not reversed, txids are",
        (
            "bitcoin/test_tx.py::test_ids_print_reversed",
            _VTXO + "test_id_texts",
            _POLICY + "test_fields_are_encoded_in_order",
        ),
    ),
    "01 §18.17": Line(
        "keys have 33 bytes, whatever a server would read",
        (
            "bitcoin/test_keys.py::test_points_off_the_curve_are_refused",
            "bitcoin/test_encode.py::test_bytes_are_accepted_or_refused_as_upstream_does",
        ),
    ),
    "01 §18.18": Line(
        "version 1 is read, version 2 written",
        (_VTXO + "test_version_1_is_read_and_written_back_as_version_2",),
    ),
    "01 §18.19": Line(
        "sums overflow at 64 bits",
        (
            _VTXO + "test_amounts_beyond_64_bits_build_nothing",
            "ark/test_arkoor.py::test_amounts_that_overflow_are_refused",
            _TREE + "test_amounts_that_overflow_make_no_tree",
            _VALID + "test_changed_vtxos_are_refused_with_upstream_s_words",
        ),
    ),
    "01 §18.20": Line(
        "a fee anchor as a sibling is not standard", (_VALID + "test_standardness_agrees_with_upstream",)
    ),
    "01 §18.21": Line(
        "no dust but the anchor relays",
        (
            _VALID + "test_what_nodes_do_not_relay",
            "wallet/exits/test_service.py::test_a_chain_that_cannot_be_broadcast_does_not_start",
            "devnet/chain/policy_suite.py::test_package_is_judged_as_the_node_does",
        ),
    ),
    "01 §18.22": Line(
        "equal ids may have other signatures; what is stored stays",
        (
            _VTXO + "test_vtxos_are_equal_by_all_they_hold_and_hash_by_id",
            "wallet/store/test_vtxos.py::test_storing_again_changes_nothing",
            "wallet/flows/test_recovery.py::"
            "test_a_vtxo_that_cannot_be_read_here_any_more_comes_from_the_server",
        ),
    ),
    "01 §18.23": Line(
        "trailing bytes end a VTXO, but not what is within one",
        (
            _VTXO + "test_every_truncation_and_every_trailing_byte_is_refused",
            _VTXO + "test_a_bare_decoder_accepts_the_full_form_but_not_the_other_way_round",
        ),
    ),
    "01 §18.24": Line(
        "a control block of two leaves has the other one's hash",
        (
            "ark/test_clause.py::test_clauses_match_upstream",
            "bitcoin/test_taproot.py::test_policy_outputs_are_upstreams",
        ),
    ),
    "01 §18.25": Line(
        "a partial signature belongs to the nonce of the same answer",
        ("ark/test_cosign.py::test_answers_differ_and_do_not_mix",),
    ),
}
