"A browser for tests: Chromium without a window, spoken to over a pipe (DevTools protocol); no driver and no network."

import base64, json, os, select, shutil, subprocess, time
from pathlib import Path

FLAGS = (
    '--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync '
    '--disable-component-update --disable-default-apps --disable-extensions --mute-audio --hide-scrollbars '
    '--allow-file-access-from-files --disable-dev-shm-usage --remote-debugging-pipe'
).split()


def find_chromium() -> str | None:
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Silent(RuntimeError):
    "The browser has gone, its tab has crashed, or it says nothing any more: nothing is known of the page."


class Browser:
    "One tab. `events` holds what happened since the last `visit`; no wait is longer than `patience` seconds."

    patience = 60

    def __init__(self, profile: Path):
        to_read, self.to = os.pipe()
        self.source, to_write = os.pipe()

        def hand_over():  # the browser reads from 3 and writes to 4
            ends = os.dup(to_read), os.dup(to_write)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        command = [find_chromium(), *FLAGS, f'--user-data-dir={profile}', 'about:blank']
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, preexec_fn=hand_over, close_fds=False, **quiet)
        os.close(to_read)
        os.close(to_write)
        self.rest, self.count, self.events, self.session = b'', 0, [], None
        tabs = self('Target.getTargets')['targetInfos']
        tab = next(t['targetId'] for t in tabs if t['type'] == 'page')
        self.session = self('Target.attachToTarget', targetId=tab, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self(f'{domain}.enable')

    def __call__(self, method: str, **params):
        "What the browser answers to one command."
        self.count += 1
        message = dict(id=self.count, method=method, params=params)
        if self.session:
            message['sessionId'] = self.session
        os.write(self.to, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + self.patience
        while True:
            got = self.next_message(end, method)
            if got.get('id') != self.count:
                self.events.append(got)
                continue
            if 'error' in got:
                raise RuntimeError(f'{method}: {got["error"]}')
            return got['result']

    def next_message(self, end: float, wanted: str) -> dict:
        "What it says next, until `end` (of `time.monotonic`)."
        while b'\0' not in self.rest:
            ready, _, _ = select.select([self.source], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise Silent(f'{wanted}: no answer in {self.patience} s')
            more = os.read(self.source, 1 << 20)
            if not more:
                raise Silent(f'{wanted}: the browser has gone')
            self.rest += more
        line, self.rest = self.rest.split(b'\0', 1)
        said = json.loads(line)
        if said.get('method') in ('Inspector.targetCrashed', 'Target.targetCrashed', 'Target.detachedFromTarget'):
            raise Silent(f'{wanted}: the tab has crashed')
        return said

    def look(self, width: int, scheme: str = 'light', height: int = 900):
        "The size of the window, and what the reader prefers."
        self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)
        self('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=scheme)])

    def visit(self, address: str):
        "Open a page and wait until it has loaded."
        self('Page.navigate', url='about:blank')  # else an address that differs behind the # alone loads nothing
        self.run('1')
        self.events.clear()
        self('Page.navigate', url=address)
        end = time.monotonic() + self.patience
        while not any(e.get('method') == 'Page.loadEventFired' for e in self.events):
            self.events.append(self.next_message(end, address))

    def run(self, script: str):
        "The value of an expression of JavaScript, a promise waited for."
        got = self('Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in got:
            raise RuntimeError(str(got['exceptionDetails'])[:1500])
        return got['result'].get('value')

    def complaints(self) -> list:
        "Errors of the console, uncaught exceptions, requests that failed or left the disk."
        out = []
        for e in self.events:
            kind, p = e.get('method'), e.get('params', {})
            if kind == 'Runtime.exceptionThrown':
                out.append(
                    p['exceptionDetails'].get('text', '') + str(p['exceptionDetails'].get('exception', ''))[:200]
                )
            if kind == 'Log.entryAdded' and p['entry']['level'] == 'error':
                out.append(p['entry']['text'])
            if kind == 'Runtime.consoleAPICalled' and p['type'] == 'error':
                out.append(str(p['args'])[:200])
            if kind == 'Network.requestWillBeSent' and not p['request']['url'].startswith(('file:', 'data:', 'blob:')):
                out.append(f'asked for {p["request"]["url"]}')
        return out

    def picture(self, path: Path, whole: bool = False):
        "The window as a PNG, or the page from top to bottom."
        shot = self('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot['data']))

    def close(self):
        self.process.kill()
        self.process.wait(20)
        os.close(self.to)
        os.close(self.source)
