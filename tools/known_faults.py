"""Known faults of the packages in constraints.txt, as pip-audit's service knows them: python tools/known_faults.py

Ends with 0 where every package was looked up and none has a known fault, 1 where one has, 2 where some were not looked up."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASKED = ('--progress-spinner', 'off', '--timeout', '15', '--disable-pip', '--no-deps', '-f', 'json', '-r')


def ask(file: Path) -> tuple:  # list of dicts, a package each, or None; what was said beside it
    "What pip-audit knows of a list of packages."
    command = [Path(sys.executable).parent / 'pip-audit', *ASKED, file]
    done = subprocess.run(command, capture_output=True, text=True)
    try: return json.loads(done.stdout)['dependencies'], done.stderr
    except (ValueError, KeyError): return None, done.stderr


def judge(packages, said: str) -> tuple:  # exit code, lines
    "What an answer means; a package that nobody knows was not looked up."
    if packages is None:
        last = said.strip().splitlines()[-1][:200] if said.strip() else 'nothing'
        return 2, ['NOT CHECKED: no service that knows faults of packages answers from here', f'pip-audit says: {last}']
    known = [one for one in packages if 'vulns' in one and 'skip_reason' not in one]
    lines = [f'{one["name"]} {one["version"]}: {fault["id"]}' for one in known for fault in one['vulns']]
    count = f'{len(known)} of {len(packages)} packages'
    if not known: return 2, [f'NOT CHECKED: the service that answers knows {count}; run this again beside one that does']
    if lines: return 1, [*lines, f'{len(lines)} known faults in {count} that were looked up']
    if len(known) < len(packages): return 2, [f'{count} were looked up and have no known fault; THE OTHERS WERE NOT CHECKED']
    return 0, [f'{count} were looked up; none has a known fault']


def main() -> int:
    code, lines = judge(*ask(ROOT / 'constraints.txt'))
    print('\n'.join(lines))
    return code


if __name__ == '__main__':
    raise SystemExit(main())
