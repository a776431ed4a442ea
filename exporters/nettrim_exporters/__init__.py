"""Graph to bytes or text: TFLite flatbuffer and C header."""
