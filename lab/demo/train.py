"""Data-parallel SGD over TCP: linear regression with a parameter server. Runs alone on a mini; needs numpy only.

The server keeps the weights; each worker computes gradients on its own part of the data. It logs as SmolCluster does:
through `logging`, to a file per process; with `--log-format python` in the usual format of Python programs. Nothing
here knows where those files go.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np

FEATURES = 16
TIMEOUT = 60.0  # seconds to wait for a peer
LEARNING_RATE = 0.05
BATCH = 64
FORMATS = {
    "smolcluster": "%(asctime)s | %(levelname)s | rank:{rank} | %(message)s",
    "python": "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
}

log = logging.getLogger("train")


def set_up_logging(folder: str, component: str, rank: str, host: str, form: str) -> None:
    """Log to `<folder>/server-<host>.log` or `<folder>/worker-rank<rank>-<host>.log` in one of `FORMATS`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = f"server-{host}" if component == "server" else f"worker-rank{rank}-{host}"
    handler = logging.FileHandler(Path(folder) / f"{name}.log")
    handler.setFormatter(logging.Formatter(FORMATS[form].format(rank=rank)))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def send(peer: socket.socket, message: object) -> None:
    """Send one message: its length in 8 bytes, then JSON."""
    data = json.dumps(message).encode()
    peer.sendall(struct.pack("!Q", len(data)) + data)


def receive(peer: socket.socket) -> object:
    """Receive one message.

    Raises:
        ConnectionError: the peer has gone.
    """

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = peer.recv(count - len(data))
            if not part:
                raise ConnectionError("the peer has closed the connection")
            data += part
        return data

    (length,) = struct.unpack("!Q", exactly(8))
    return json.loads(exactly(length))


def serve(port: int, workers: int, steps: int, step_time: float) -> None:
    """Average the workers' gradients, step by step.

    Parameters:
        port: TCP port to listen on.
        workers: number of workers.
        steps: number of steps.
        step_time: shortest time of a step in seconds.
    """
    peers: dict[int, socket.socket] = {}
    with socket.create_server(("", port)) as listener:
        listener.settimeout(TIMEOUT)
        log.info("Waiting for %d workers on port %d", workers, port)
        while len(peers) < workers:
            peer, address = listener.accept()
            peer.settimeout(TIMEOUT)
            rank = receive(peer)
            peers[rank] = peer
            log.info("Worker with rank %d joined from %s", rank, address[0])
    weights = np.zeros(FEATURES)
    for step in range(1, steps + 1):
        start = time.monotonic()
        for peer in peers.values():
            send(peer, weights.tolist())
        results = {rank: receive(peer) for rank, peer in peers.items()}
        usable = [result for result in results.values() if result is not None]
        if len(usable) < len(results):
            missing = [rank for rank, result in results.items() if result is None]
            log.warning("step:%d | no gradient from rank %s, going on without", step, missing)
        weights = weights - LEARNING_RATE * np.mean([gradient for _, gradient in usable], axis=0)
        loss = float(np.mean([loss for loss, _ in usable]))
        log.info("step:%d | metric:loss | value:%.6f", step, loss)
        time.sleep(max(0.0, step_time - (time.monotonic() - start)))
    for peer in peers.values():
        send(peer, None)
        peer.close()
    log.info("Training finished after %d steps", steps)


def gradient(weights: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, list[float]]:
    """Loss (mean squared error) and its gradient.

    Raises:
        ValueError: the batch holds something that is no number.
    """
    bad = np.count_nonzero(~np.isfinite(inputs))
    if bad:
        raise ValueError(f"batch has {bad} values that are not finite")
    errors = inputs @ weights - targets
    return float(errors @ errors / len(errors)), (2 * inputs.T @ errors / len(errors)).tolist()


def work(server: str, port: int, rank: int) -> None:
    """Compute gradients until the server has no more weights.

    Parameters:
        server: name or address of the server's host.
        port: its TCP port.
        rank: this worker's rank; also chooses its part of the data.
    """
    truth = np.random.default_rng(0).normal(size=FEATURES)
    data = np.random.default_rng(rank + 1)
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            peer = socket.create_connection((server, port), timeout=TIMEOUT)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    with peer:
        send(peer, rank)
        log.info("Connected to %s:%d", server, port)
        step = 0
        while (weights := receive(peer)) is not None:
            step += 1
            inputs = data.normal(size=(BATCH, FEATURES))
            targets = inputs @ truth + data.normal(scale=0.1, size=BATCH)
            if rank == 1 and step == 20:
                inputs[3, 5] = np.nan  # as a damaged sample would
            try:
                result = gradient(np.array(weights), inputs, targets)
                log.info("step:%d | metric:loss | value:%.6f", step, result[0])
            except ValueError:
                log.exception("step:%d | batch skipped", step)
                result = None
            send(peer, result)
    log.info("Worker finished after %d steps", step)


def main() -> int:
    """Run one process of the training; 1 when a peer has gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("component", choices=["server", "worker"])
    parser.add_argument("--host", required=True, help="name of this host, for the log file's name")
    parser.add_argument("--server", default="127.0.0.1", help="host of the server")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--step-time", type=float, default=0.2, help="shortest time of a step in seconds")
    parser.add_argument("--log-dir", default="/tmp/smolcluster-logs")  # noqa: S108 - SmolCluster's own folder
    parser.add_argument("--log-format", choices=list(FORMATS), default="smolcluster")
    options = parser.parse_args()
    rank = "server" if options.component == "server" else str(options.rank)
    set_up_logging(options.log_dir, options.component, rank, options.host, options.log_format)
    try:
        if options.component == "server":
            serve(options.port, options.workers, options.steps, options.step_time)
        else:
            work(options.server, options.port, options.rank)
    except OSError as error:
        log.error("Training stopped: %s", error)
        print(f"{options.component} {rank}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
