"""What every benchmark keeps: the machine it ran on, and its figures in a JSON file that is written whole or not at all."""
import datetime, json, os, platform
from importlib.metadata import version
from pathlib import Path

results = Path(__file__).parent/'results'

def machine(*packages):
    "Processor, cores, load, Python, the versions of these packages, the date; with torch among them, its threads and its GPU too."
    cpu = platform.processor()
    if Path('/proc/cpuinfo').exists():
        cpu = next((line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')), cpu)
    found = {'cpu': cpu, 'cores': os.cpu_count(), 'load': round(os.getloadavg()[0], 1), 'python': platform.python_version()}
    if 'torch' in packages:
        import torch
        found['threads'] = torch.get_num_threads()
        if torch.cuda.is_available(): found['gpu'] = torch.cuda.get_device_name()
    return {**found, **{p: version(p) for p in packages}, 'date': datetime.date.today().isoformat()}

def keep(found, path):
    "Write what was found, as JSON."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix('.part')
    part.write_text(json.dumps(found, indent=1) + '\n')
    part.replace(path)
    print(f'kept in {path}')
