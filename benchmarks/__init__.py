"Speed against peers (speed) and experiments that need data (experiments): python -m benchmarks.speed.chunking."
