"""Deliveries: channels with an operator are claimed here and sent to it by HTTP POST (docs/operators.md)."""
