"""Diff pruning, stage 1: gates that are learnt."""
