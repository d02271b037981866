"""The connection to the Ark server, in domain types; protobuf ends at this folder's edge.

api         what may be asked, as a Protocol: the wallet and the tests' servers know only this
client      the same over gRPC                     connection  channel, handshake, version, access token
convert     messages to domain types and back      errors      gRPC statuses: refused, or unknown?
streams     subscriptions that come back           socks       a SOCKS5 proxy, which gRPC does not speak
protos      the .proto files and their stubs       generate    makes the stubs
"""
