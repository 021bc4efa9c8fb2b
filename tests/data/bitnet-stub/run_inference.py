"""A stand-in for the launcher script of bitnet.cpp: same flags, same messages, same exit codes, as the captured runs show."""

import argparse
import os
import signal
import subprocess
import sys


def farewell(number, frame):
    print("Ctrl+C pressed, exiting...")
    sys.exit(0)


signal.signal(signal.SIGINT, farewell)
parser = argparse.ArgumentParser(description="Run inference")
parser.add_argument("-m", "--model", default="models/none.gguf")
parser.add_argument("-n", "--n-predict", type=int, default=128)
parser.add_argument("-p", "--prompt", required=True)
parser.add_argument("-t", "--threads", type=int, default=2)
parser.add_argument("-c", "--ctx-size", type=int, default=2048)
parser.add_argument("-temp", "--temperature", type=float, default=0.8)
parser.add_argument("-cnv", "--conversation", action="store_true")
given = parser.parse_args()
words = [os.path.join("build", "bin", "llama-cli"), "-m", given.model, "-n", str(given.n_predict)]
words += ["-t", str(given.threads), "-p", given.prompt, "-ngl", "0", "-c", str(given.ctx_size)]
words += ["--temp", str(given.temperature), "-b", "1"]
try:
    subprocess.run(words, check=True)
except subprocess.CalledProcessError as error:
    print(f"Error occurred while running command: {error}")
    sys.exit(1)
