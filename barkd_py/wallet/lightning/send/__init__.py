"""Paying over Lightning: `sends` starts and finds payments, `machine` drives one."""
