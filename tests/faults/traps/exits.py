"""Sheet 06 §10: exits and the on-chain wallet."""

from tests.faults.register import Line

_DRIVER = "wallet/exits/test_driver.py::"
_SERVICE = "wallet/exits/test_service.py::"
_MACHINE = "wallet/exits/test_machine.py::"
_API = "api/test_exits.py::"
_CHILDREN = "onchain/wallet_cases.py::"
_SEED = "contract/test_seed_statements.py::"

TRAPS = {
    "06 §10.1": Line(
        "done is not claimed",
        (
            _SEED + "test_done_is_true_while_an_exit_waits_to_be_claimed",
            _SEED + "test_claims_are_not_made_by_the_daemon_and_have_no_txid",
        ),
    ),
    "06 §10.2": Line(
        "a start passes some over, and stops half-way",
        (
            _SERVICE + "test_vtxos_that_are_in_use_are_passed_over",
            _SERVICE + "test_an_error_leaves_the_earlier_ones_started",
        ),
    ),
    "06 §10.3": Line(
        "what exits may still be paid with, which ends the exit",
        (
            "wallet/flows/test_exits.py::test_a_coin_that_is_paid_away_ends_its_exit",
            _DRIVER + "test_a_vtxo_that_is_spent_meanwhile_ends_its_exit",
        ),
    ),
    "06 §10.4": Line(
        "an exit may be begun again after its end, with a movement of its own",
        (
            _SERVICE + "test_a_canceled_exit_can_be_started_again",
            "wallet/exits/test_losses.py::test_what_was_swept_is_in_the_balance_and_has_not_left_in_history",
        ),
    ),
    "06 §10.5": Line(
        "a history does not grow with each block",
        (
            _MACHINE + "test_waiting_in_claimable_adds_nothing_to_the_history",
            _MACHINE + "test_history_of_a_slow_exit_has_each_state_once",
        ),
    ),
    "06 §10.6": Line(
        "what several exits share is confirmed once, in its child's block",
        (
            _DRIVER + "test_exits_that_share_a_transaction_pay_for_it_once",
            _DRIVER + "test_a_deep_chain_is_confirmed_level_by_level",
            _MACHINE + "test_status_of_a_transaction",
        ),
    ),
    "06 §10.7": Line(
        "a child that is gone does not look alive",
        (
            _DRIVER + "test_a_child_whose_coin_is_gone_is_replaced_by_another",
            _DRIVER + "test_an_evicted_package_is_broadcast_again_with_the_same_child",
        ),
    ),
    "06 §10.8": Line(
        "no coin pays for two children",
        (
            _CHILDREN + "test_children_take_turns_with_the_coins",
            _CHILDREN + "test_coins_of_a_child_are_taken",
            _DRIVER + "test_unconfirmed_money_does_not_pay",
        ),
    ),
    "06 §10.9": Line(
        "children that were refused or replaced are no money",
        (
            _DRIVER + "test_a_refused_package_is_an_error_and_frees_its_coins",
            _DRIVER + "test_our_child_counts_no_more_once_a_stranger_has_replaced_it",
        ),
    ),
    "06 §10.10": Line(
        "children are paid with confirmed coins",
        (_DRIVER + "test_unconfirmed_money_does_not_pay", _CHILDREN + "test_child_needs_confirmed_coins"),
    ),
    "06 §10.11": Line(
        "an anchor's value counts",
        (
            _DRIVER + "test_an_anchor_with_value_pays_for_itself",
            "onchain/test_cpfp.py::test_anchor_counts_as_an_input",
        ),
    ),
    "06 §10.12": Line(
        "fee rates come in three units",
        (
            _API + "test_the_fee_rate_of_children_is_per_kvb",
            "bitcoin/test_tx.py::test_fee_rates_convert_and_round_as_upstreams",
            "contract/test_recorded_exits.py::test_answers_are_the_recorded_ones",
        ),
    ),
    "06 §10.13": Line(
        "a child without a fee is refused",
        (
            _API + "test_children_that_nobody_would_relay_are_refused",
            "onchain/test_cpfp.py::test_rate_that_no_node_relays_is_refused",
        ),
    ),
    "06 §10.14": Line(
        "unconfirmed inputs have no order", (_MACHINE + "test_the_order_of_unconfirmed_inputs_means_nothing",)
    ),
    "06 §10.15": Line(
        "reading does not wait for the network", (_SERVICE + "test_reading_does_not_wait_for_a_run",)
    ),
    "06 §10.16": Line(
        "change goes to no address that was shown",
        (
            _CHILDREN + "test_change_goes_to_no_address_that_was_shown",
            _CHILDREN + "test_change_that_never_was_leaves_its_address_to_the_next",
            _CHILDREN + "test_change_is_found_by_who_has_only_the_words",
        ),
    ),
    "06 §10.17": Line(
        "a cookie is read again",
        ("chain/test_bitcoind.py::test_cookie_is_read_again_after_a_restart_of_the_node",),
    ),
    "06 §10.18": Line(
        "mutinynet is a signet of its own",
        (
            "chain/test_bitcoind.py::test_mutinynet_is_a_signet",
            "onchain/test_creation.py::test_mutinynet_wallet_is_a_signet_wallet",
        ),
    ),
    "06 §10.19": Line(
        "tips go back",
        (
            _MACHINE + "test_a_reorg_starts_over_from_every_state_that_stands_on_confirmations",
            _MACHINE + "test_each_state_in_each_view",
            "wallet/exits/test_reorgs.py::test_the_delay_starts_anew_if_the_exit_is_confirmed_later",
        ),
    ),
    "06 §10.20": Line(
        "an exit whose VTXO is gone can be looked at, with its transactions",
        (_SERVICE + "test_history_and_packages_are_there_when_asked_for",),
    ),
}
