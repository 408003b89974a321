"""Text to token ids and back: the encoding, its training, and which language a text is in."""

from braingpt.tokenizer.encoding import StreamDecoder, Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
