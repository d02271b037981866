"""Sheet 08 §10: gRPC, as the Ark server speaks it."""

from tests.faults.register import Line

_CLIENT = "server_rpc/test_client.py::"
_CONNECTION = "server_rpc/test_connection.py::"
_STUBS = "server_rpc/test_generated.py::"
_STREAMS = "server_rpc/test_streams.py::"

TRAPS = {
    "08 §10.1": Line(
        "attestations differ in the order of bytes",
        (
            "ark/test_attestations.py::test_rounds_write_big_endian_and_payments_little_endian",
            "ark/test_attestations.py::test_messages_match_upstream",
        ),
    ),
    "08 §10.2": Line(
        "ids are sent in internal byte order",
        (
            _CLIENT + "test_ids_are_sent_in_internal_byte_order",
            _CLIENT + "test_a_finished_offboard_is_named_in_internal_byte_order",
        ),
    ),
    "08 §10.3": Line(
        "the numbers of fields have holes",
        (
            _STUBS + "test_numbers_of_fields_beside_the_holes",
            _STUBS + "test_upstreams_bytes_hold_the_fields_that_the_vectors_name",
        ),
    ),
    "08 §10.4": Line("empty is not absent", (_CLIENT + "test_recovery_by_xpub",)),
    "08 §10.5": Line(
        "the names of a status are in everybody's way",
        (
            _STUBS + "test_generating_again_changes_nothing",
            _CLIENT + "test_an_unknown_receive_status_is_no_success",
        ),
    ),
    "08 §10.6": Line(
        "generated modules are in a package", (_STUBS + "test_generating_again_changes_nothing",)
    ),
    "08 §10.7": Line(
        "registrations are cut by bytes and by number",
        (_CLIENT + "test_registration_is_split_by_bytes", _CLIENT + "test_registration_is_split_by_count"),
    ),
    "08 §10.8": Line(
        "the offboard's fee rate is the server's integer",
        (_CLIENT + "test_the_offboard_rate_is_divided_down_as_the_server_does",),
    ),
    "08 §10.9": Line(
        "HTLC VTXOs are ids in one answer and whole in another",
        (
            "wallet/flows/test_lightning_receive.py::test_a_node_outside_pays",
            "interop/test_lightning.py::test_bark_pays_outside_and_is_paid",
        ),
    ),
    "08 §10.10": Line(
        "no deadline for streams, no compression, answers above 4 MiB",
        (
            _CONNECTION + "test_an_interrupted_stream_is_told_from_a_refused_one",
            _CONNECTION + "test_headers_of_the_handshake_and_of_later_calls",
            _CONNECTION + "test_an_answer_larger_than_the_library_allows_by_default_arrives",
        ),
    ),
    "08 §10.11": Line(
        "a stream that ends is opened again quietly",
        (
            _STREAMS + "test_five_streams_without_a_message_are_enough",
            _STREAMS + "test_a_message_starts_the_count_and_the_pauses_anew",
            "wallet/flows/test_loops.py::test_a_stream_that_breaks_is_opened_again",
        ),
    ),
    "08 §10.12": Line(
        "the first handshake has no version",
        (_CONNECTION + "test_headers_of_the_handshake_and_of_later_calls",),
    ),
    "08 §10.13": Line(
        "every call has a user agent of the right form",
        (
            _CONNECTION + "test_headers_of_the_handshake_and_of_later_calls",
            "devnet/ark_server/vtxos/test_lookups.py::test_client_names_must_have_a_form",
        ),
    ),
    "08 §10.14": Line(
        "an id that the server does not know fails twenty",
        (
            "wallet/flows/test_board.py::test_a_registered_board_is_in_the_recovery_mailbox",
            "wallet/flows/test_mailbox.py::test_one_id_that_the_server_refuses_does_not_spoil_the_others",
        ),
    ),
    "08 §10.15": Line("no round yet is no error", (_CLIENT + "test_no_round_yet_is_not_an_error",)),
    "08 §10.16": Line(
        "terms are read again, and judged again",
        (
            _CONNECTION + "test_info_is_read_again_when_it_is_ten_minutes_old",
            _CONNECTION + "test_terms_that_become_unsafe_are_refused",
            _CONNECTION + "test_a_changed_key_stops_every_call_and_is_never_adopted",
        ),
    ),
}
