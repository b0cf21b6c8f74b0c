"Speed against peers, and experiments that need data: `python -m benchmarks.speed.chunking`."
