"""Boarding: on-chain coins become a VTXO. `boards` starts, drives and lists boards."""
