"""Run one server for as long as whoever started this lives; end it by its pid, then remove its folder.

    python guard.py FOLDER STOP_SIGNAL USER COMMAND...

The owner keeps our standard input open. However the owner ends, an interrupt and kill -9 included, that
pipe closes, so that no server and no folder outlives a test run.
"""

import shutil
import subprocess
import sys
import threading
from typing import BinaryIO

STOP_PATIENCE_S = 10.0


def main(folder: str, stop_signal: str, user: str, *command: str) -> int:
    """Start the command, say its pid, wait until it ends or our owner does."""
    with open(f"{folder}/server.log", "wb") as log:  # noqa: PTH123 - pathlib would double the start time
        server = started(command, log, user)
    print(server.pid, flush=True)
    threading.Thread(target=stop_after_owner, args=(server, int(stop_signal)), daemon=True).start()
    code = server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return code


def started(command: tuple[str, ...], log: BinaryIO, user: str) -> subprocess.Popen[bytes]:
    """Start the command, as another account where one is named."""
    if not user:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    group = user_group(user)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, group=group, extra_groups=[]
    )


def user_group(user: str) -> int:
    """Return the primary group of an account; only POSIX has the module, and only root comes here."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def stop_after_owner(server: subprocess.Popen[bytes], stop_signal: int) -> None:
    """Wait for the end of the owner, ask the server to stop, and insist if it does not."""
    sys.stdin.buffer.read()
    server.send_signal(stop_signal)
    try:
        server.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
