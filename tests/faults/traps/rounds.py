"""Sheet 04 §25: rounds."""

from tests.faults.register import Line

_TREE = "ark/test_tree.py::"
_ROUNDS = "ark/test_rounds.py::"
_TRAPS = "wallet/flows/test_round_traps.py::"
_TROUBLE = "wallet/flows/test_round_trouble.py::"
_CRASHES = "wallet/flows/test_round_crashes.py::"
_LIES = "wallet/flows/test_round_lies.py::"
_MACHINE = "wallet/rounds/test_machine.py::"
_REFRESH = "wallet/flows/test_automatic_refresh.py::"

TRAPS = {
    "04 §25.1": Line(
        "a server that sleeps says yes and means nothing",
        (
            _TRAPS + "test_a_registration_that_the_server_threw_away_is_noticed",
            "wallet/flows/test_server_knobs.py::test_signatures_that_are_taken_and_thrown_away",
        ),
    ),
    "04 §25.2": Line(
        "attestations of rounds are big-endian, in the order of the request",
        (
            "ark/test_attestations.py::test_rounds_write_big_endian_and_payments_little_endian",
            "ark/test_attestations.py::test_the_same_outputs_in_another_order_need_another_proof",
        ),
    ),
    "04 §25.3": Line(
        "nonces go by level, signatures by branch",
        (
            _TREE + "test_levels_skip_and_signatures_do_not",
            _TREE + "test_shapes",
            _TREE + "test_a_tree_of_65535_leaves_has_nine_levels",
        ),
    ),
    "04 §25.4": Line(
        "leaf lists wrap", (_TREE + "test_leaf_lists_wrap", _TREE + "test_specs_are_upstream_s_byte_for_byte")
    ),
    "04 §25.5": Line(
        "deltas up to 16 are opcodes", ("ark/test_clause.py::test_numbers_are_pushed_in_the_shortest_way",)
    ),
    "04 §25.6": Line(
        "a forfeit has a sequence of its own, and the exit delta of its input",
        (_ROUNDS + "test_the_worked_forfeit", _ROUNDS + "test_forfeits_are_upstream_s"),
    ),
    "04 §25.7": Line(
        "what is tweaked and what is not",
        (
            "ark/test_vtxo.py::test_the_worked_leaf",
            _ROUNDS + "test_forfeits_are_upstream_s",
            _TREE + "test_upstream_s_cosigning_adds_up",
        ),
    ),
    "04 §25.8": Line(
        "no key is used for two outputs",
        (
            _CRASHES + "test_several_refreshes_of_one_wallet_in_one_round",
            _ROUNDS + "test_every_output_has_a_leaf_of_its_own",
        ),
    ),
    "04 §25.9": Line(
        "an empty round fails as well, and nobody who waits minds",
        (
            _MACHINE + "test_every_state_meets_every_observation",
            _REFRESH + "test_the_threshold_and_what_goes_along",
        ),
    ),
    "04 §25.10": Line(
        "a delegated participation may be deleted",
        (
            _TRAPS + "test_a_participation_that_the_server_has_deleted_is_handed_over_again",
            _TRAPS + "test_a_participation_that_is_deleted_for_ever_is_given_up",
            _TRAPS + "test_a_delegated_input_that_was_paid_away_ends_the_participation",
        ),
    ),
    "04 §25.11": Line(
        "one participation supersedes another",
        (
            _TRAPS + "test_a_refresh_in_person_supersedes_a_delegated_one",
            _TROUBLE + "test_a_second_delegation_replaces_the_first",
        ),
    ),
    "04 §25.12": Line(
        "the fee is exact, rounded once, of the height that counts",
        (
            "ark/test_fees.py::test_refresh_fees_match_upstream",
            "ark/test_fees.py::test_a_fee_is_rounded_once_and_never_down",
            _TRAPS + "test_a_scheduled_refresh_pays_the_fee_of_its_height",
            "devnet/ark_server/rounds/test_delegated.py::test_fee_is_exact_and_that_of_the_height",
        ),
    ),
    "04 §25.13": Line(
        "the funding transaction may come unsigned",
        (_TRAPS + "test_an_unsigned_funding_transaction_is_taken_from_the_chain",),
    ),
    "04 §25.14": Line("forfeit nonces do not keep", (_CRASHES + "test_a_server_restarted_in_the_swap",)),
    "04 §25.15": Line(
        "all inputs are forfeited, or none",
        (
            _REFRESH + "test_the_threshold_and_what_goes_along",
            "devnet/ark_server/rounds/test_forfeits.py::test_all_inputs_or_none",
        ),
    ),
    "04 §25.16": Line(
        "subscriptions end, and the last event comes again",
        (
            _TROUBLE + "test_events_may_come_twice",
            _MACHINE + "test_replayed_and_foreign_events_mean_nothing",
            "server_rpc/test_streams.py::test_a_message_starts_the_count_and_the_pauses_anew",
        ),
    ),
    "04 §25.17": Line(
        "nothing is held while events are waited for, one participation while one is handled",
        (
            _TROUBLE + "test_a_refresh_is_canceled_until_it_is_signed",
            _TROUBLE + "test_many_tasks_may_see_one_event",
        ),
    ),
    "04 §25.18": Line(
        "a tip far ahead of the server's signs nothing; one behind is no harm",
        (
            _TRAPS + "test_a_wallet_far_ahead_of_the_server_does_not_sign_a_short_life",
            "wallet/flows/test_server_knobs.py::test_a_server_that_is_not_at_our_height",
        ),
    ),
    "04 §25.19": Line(
        "only what must be refreshed starts a refresh",
        (
            "wallet/vtxos/test_selection.py::"
            "test_maintenance_takes_those_that_should_along_with_those_that_must",
            _REFRESH + "test_the_threshold_and_what_goes_along",
        ),
    ),
    "04 §25.20": Line(
        "a refresh is no larger than a VTXO may be",
        ("wallet/rounds/test_maintenance.py::test_inputs_are_cut_to_what_the_server_puts_into_one_vtxo",),
    ),
    "04 §25.21": Line(
        "delegated, safety is in not having forfeited",
        (
            _LIES + "test_nothing_is_forfeited_without_confirmations",
            _LIES + "test_nothing_is_forfeited_for_less_than_all_leaves",
            _CRASHES + "test_a_double_spent_round_forfeits_nothing_and_ends_when_that_is_deep",
        ),
    ),
    "04 §25.22": Line(
        "a round that is called off has failed", (_TROUBLE + "test_a_refresh_is_canceled_until_it_is_signed",)
    ),
    "04 §25.23": Line(
        "a round that is over is in no list",
        (
            "contract/test_recorded_rounds.py::test_answers_are_the_recorded_ones",
            "interop/test_rounds.py::test_a_delegated_refresh",
            _TRAPS + "test_confirmations_may_be_none",
        ),
    ),
}
