"""The keys and values that sheet 01 §17 works its examples with."""

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey

SERVER_SECRET = SecretKey(bytes.fromhex("916da686cedaee9a9bfb731b77439f2a3f1df8664e16488fba46b8d2bfe15e92"))
USER_SECRET = SecretKey(bytes.fromhex("fab9e598081a3e74b2233d470c4ad87bcc285b6912ed929568e62ac0e9409879"))
SERVER = SERVER_SECRET.public_key
USER = USER_SECRET.public_key
COMBINED = "027db2187a69f1a4fc7685e2a32e70583701d5ca90f554a3aa26cd45827cb1ab2b"
EXIT_DELTA = 2016
EXPIRY_HEIGHT = 101_010

PAYMENT_HASH = sha256(b"arkoor1")
HTLC_EXPIRY_HEIGHT = 100_010
HTLC_EXPIRY_DELTA = 40
UNLOCK_PREIMAGE = bytes.fromhex("c05bc2f82c8c64e470cd4d87aca42989b46879ca32320cd035db124bb78c4e74")
UNLOCK_HASH = bytes.fromhex("531f51576ab2591af807f4a82b184511d00ab9638b9c23aee8f075dd282e3954")
