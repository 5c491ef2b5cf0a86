"""Processes and pools of Python, driven over standard input like every other row."""
import concurrent.futures
import ctypes
import glob
import json
import multiprocessing
import os
import sys
import time


def die_with_parent(parent=None):
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: prctl(2)
    if parent and os.getppid() != parent:
        os._exit(1)


def nothing():
    pass


def task(job):
    argument, task_ns = job
    if task_ns:
        end = time.monotonic_ns() + task_ns
        while time.monotonic_ns() < end:
            pass
    return len(argument)


def cpu_ns():
    """Of this process, of the children it has waited for, and of those that live."""
    times = os.times()
    total = time.process_time_ns() + int((times.children_user + times.children_system) * 1e9)
    for path in glob.glob("/proc/self/task/*/children"):
        for child in open(path).read().split():
            for stat in glob.glob(f"/proc/{child}/task/*/schedstat"):
                total += int(open(stat).read().split()[0])
    return total


class Process:
    def __init__(self, workers, chunk):
        pass

    def one(self, job):
        process = multiprocessing.Process(target=nothing)
        process.start()
        process.join()
        assert process.exitcode == 0
        return len(job[0])


class Pool:
    def __init__(self, workers, chunk):
        self.chunk = chunk
        self.pool = multiprocessing.Pool(workers, die_with_parent, (os.getpid(),))

    def one(self, job):
        return self.pool.apply(task, (job,))

    def all(self, jobs):
        return self.pool.map(task, jobs, self.chunk)


class ProcessPoolExecutor:
    def __init__(self, workers, chunk):
        self.pool = concurrent.futures.ProcessPoolExecutor(
            workers, initializer=die_with_parent, initargs=(os.getpid(),))

    def one(self, job):
        return self.pool.submit(task, job).result()

    def all(self, jobs):
        return self.pool.map(task, jobs)


def main():
    die_with_parent()
    spec = json.loads(os.read(0, 1 << 18))["spec"]
    multiprocessing.set_start_method("fork")
    kind, _, chunk = sys.argv[1].partition(":chunk=")
    starts = spec["workload"] == "start"
    memory = bytearray(b"\xa5") * spec["size"] if starts else None
    in_a_call = int(sys.argv[3])
    job = (b"" if starts else bytes(spec["size"]), spec["task_ns"])
    pool = globals()[kind](int(sys.argv[2]), int(chunk) if chunk else None)
    pool.one(job)
    os.write(0, json.dumps({"type": "ready"}).encode())
    while True:
        text = os.read(0, 1 << 18)
        if not text:
            os._exit(0)
        run = json.loads(text)
        messages, counts = run["messages"], {}
        # Arguments of their own: pickle would send one that is shared only once.
        jobs = [(bytes(spec["size"]), spec["task_ns"]) for _ in range(min(messages, in_a_call))] \
            if spec["workload"] == "map" else None
        cpu, start = cpu_ns(), time.monotonic_ns()
        if jobs:
            for done in range(0, messages, in_a_call):
                some = jobs if messages - done >= len(jobs) else jobs[:messages - done]
                assert sum(pool.all(some)) == len(some) * len(job[0])
        else:
            before = start
            for _ in range(messages):
                assert pool.one(job) == len(job[0])
                if run["sample"]:
                    now = time.monotonic_ns()
                    sample = (now - before) // 1000 * 1000
                    counts[sample] = counts.get(sample, 0) + 1
                    before = now
        end = time.monotonic_ns()
        report = {"type": "done", "start_ns": start, "end_ns": end, "cpu_ns": cpu_ns() - cpu,
                  "histogram": sorted(counts.items())}
        os.write(0, json.dumps(report).encode())


main()
