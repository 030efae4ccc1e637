"""Tests of storaged-nova: with Nova's own classes, without a hypervisor."""
