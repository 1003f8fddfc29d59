"""The text that a device's Python is started with: it puts the agent's file in place, where it is not, and starts it.

It is sent as a whole with ``python -c`` and imports nothing of the package. Arguments: the folder, the file's SHA-256
and size, and the host's word, by which its answer is told from a banner.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# A Python that is too old for types must read this, too.

import hashlib
import os
import sys


def say(word, told, rest=""):
    """Tells the host one word of the start."""
    os.write(1, ("\nhalp-trt agent " + word + " " + told + (" " + rest if rest else "") + "\n").encode())


def sound(path, digest):
    """True if the file is there and whole."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == digest
    except (IOError, OSError):  # noqa: UP024 (an old Python reads it, too)
        return False


def receive(path, digest, size):
    """Writes the file from the standard input; ends where the host went away or sent another one."""
    parts, left = [], size
    while left:
        part = os.read(0, min(left, 1 << 16))
        if not part:
            sys.exit(3)
        parts.append(part)
        left -= len(part)
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit(3)
    own = path + "." + str(os.getpid())
    try:
        with open(own, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(own, path)
    finally:
        if os.path.exists(own):
            os.remove(own)


def main():
    """Starts the agent in this process."""
    folder, digest, size, word = sys.argv[1:5]
    if sys.version_info < (3, 8):  # noqa: UP036 (an old Python reads it, too)
        say("refused", word, "its Python is %d.%d, and the agent needs 3.8" % sys.version_info[:2])  # noqa: UP031 (an old Python reads it, too)
        sys.exit(2)
    home = os.path.expanduser(folder)
    path = os.path.join(home, "agents", digest + ".pyz")
    try:
        if not sound(path, digest):
            os.makedirs(os.path.join(home, "agents"), mode=0o700, exist_ok=True)
            say("wanted", word)
            receive(path, digest, int(size))
    except (IOError, OSError) as error:  # noqa: UP024 (an old Python reads it, too)
        say("refused", word, "the folder " + home + " takes no file (" + str(error.strerror or error) + ")")
        sys.exit(2)
    os.execv(sys.executable, [sys.executable, path, "serve", home, word])


main()
