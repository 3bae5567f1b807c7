"""What others say, as text that can be kept and shown."""


def one_line(said: object) -> str:
    """An engine's, a registry's or a program's words as one line.

    Without NUL and halves of surrogate pairs, which no database keeps: whoever writes the words may be a stranger.
    """
    text = str(said).replace("\0", " ").encode(errors="replace").decode()
    return " ".join(text.split())
