"""What a caller sees: types, fields and their descriptions."""
