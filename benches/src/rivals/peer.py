"""One row of Python's multiprocessing, driven over standard input like every other side."""
import ctypes
import json
import multiprocessing
import os
import sys
import time

WINDOW = 8  # messages on their way in the workload of that name
WARM_UP = 8  # round trips before the clock starts


def die_with_parent(parent=None):
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: prctl(2)
    if parent and os.getppid() != parent:
        os._exit(1)


def respond(link, spec, cpus, parent):
    die_with_parent(parent)
    if cpus:
        os.sched_setaffinity(0, {cpus[1]})
    receive, send, runs, reports = link
    while True:
        messages = runs.recv()
        if spec["workload"] != "throughput":
            for _ in range(WARM_UP):
                send(receive())
        cpu = time.process_time_ns()
        if spec["workload"] != "throughput":
            for _ in range(messages):
                send(receive())
        else:
            for _ in range(messages):
                receive()
        end = time.monotonic_ns()
        reports.send((end, time.process_time_ns() - cpu))


def pipe():
    a, b = multiprocessing.Pipe()
    return (b.recv_bytes, b.send_bytes), (a.recv_bytes, a.send_bytes)


def queue():
    there, back = multiprocessing.Queue(), multiprocessing.Queue()
    return (there.get, back.put), (back.get, there.put)


def main():
    die_with_parent()
    command = json.loads(os.read(0, 1 << 18))
    spec = command["spec"]
    cpus = json.loads(sys.argv[2])
    multiprocessing.set_start_method("fork")
    far, (receive, send) = {"pipe": pipe, "queue": queue}[sys.argv[1]]()
    runs_out, runs = multiprocessing.Pipe(duplex=False)
    reports, reports_in = multiprocessing.Pipe(duplex=False)
    link = (*far, runs_out, reports_in)
    multiprocessing.Process(target=respond, args=(link, spec, cpus, os.getpid()), daemon=True).start()
    if cpus:
        os.sched_setaffinity(0, {cpus[0]})
    message = bytes(spec["size"])
    os.write(0, json.dumps({"type": "ready"}).encode())
    while True:
        text = os.read(0, 1 << 18)
        if not text:
            os._exit(0)
        run = json.loads(text)
        messages, counts = run["messages"], {}
        runs.send(messages)
        if spec["workload"] != "throughput":
            for _ in range(WARM_UP):
                send(message)
                receive()
        cpu, start = time.process_time_ns(), time.monotonic_ns()
        if spec["workload"] == "rtt":
            if run["sample"]:
                before = start
                for _ in range(messages):
                    send(message)
                    receive()
                    now = time.monotonic_ns()
                    sample = (now - before) // 100 * 100
                    counts[sample] = counts.get(sample, 0) + 1
                    before = now
            else:
                for _ in range(messages):
                    send(message)
                    receive()
            end = time.monotonic_ns()
        elif spec["workload"] == "window":
            for number in range(messages + WINDOW):
                if number >= WINDOW:
                    receive()
                if number < messages:
                    send(message)
            end = time.monotonic_ns()
        else:
            for _ in range(messages):
                send(message)
        far_end, far_cpu = reports.recv()
        if spec["workload"] == "throughput":
            end = far_end
        used = time.process_time_ns() - cpu + far_cpu
        report = {"type": "done", "start_ns": start, "end_ns": end, "cpu_ns": used,
                  "histogram": sorted(counts.items())}
        os.write(0, json.dumps(report).encode())


main()
