"The package as `settings.ini` describes it: that file is the one place for names, versions and requirements."

from configparser import ConfigParser
from pathlib import Path
import setuptools
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
if not parser.read(here / 'settings.ini', encoding='utf-8'):
    raise SystemExit(f"setup.py: {here / 'settings.ini'} is missing; it lies in the root of the checkout")
cfg = parser['DEFAULT']
wanted = (
    'lib_name user version description keywords author author_email license min_python language status audience '
    'git_url lib_path requirements dev_requirements console_scripts'
).split()
missing = [o for o in wanted if o not in cfg]
if missing: raise SystemExit(f"settings.ini: missing {', '.join(missing)}")

statuses = [
    '1 - Planning',
    '2 - Pre-Alpha',
    '3 - Alpha',
    '4 - Beta',
    '5 - Production/Stable',
    '6 - Mature',
    '7 - Inactive',
]
licenses = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}

SHIPPED = (  # what the package reads of the repository, see brainllm.core.shipped_file
    'parts.txt constraints.txt data/README.md data/haxby2001-slice/* data/urgen-clips/* data/ablation/*.json '
    'data/compare/*.json data/costs/*.json data/moments/*.json data/results/*.json'
).split()


class BuildWithShipped(build_py):
    "A wheel that holds these files too, in a folder beside the modules."

    def run(self):
        super().run()
        if self.editable_mode: return
        for pattern in SHIPPED:
            found = sorted(here.glob(pattern))
            if not found: raise SystemExit(f'setup.py: found no {pattern} in {here}, wanted it for the wheel')
            for file in found:
                target = Path(self.build_lib, cfg['lib_path'], 'shipped', file.relative_to(here))
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setuptools.setup(
    cmdclass={'build_py': BuildWithShipped},
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license=licenses[cfg['license']],
    long_description=(here / 'README.md').read_text(encoding='utf-8')
    if (here / 'README.md').exists()
    else cfg['description'],
    long_description_content_type='text/markdown',
    packages=setuptools.find_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"]),
    package_data={cfg['lib_path']: ['py.typed', '*.pyi', '*/*.pyi']},
    include_package_data=True,
    zip_safe=False,
    install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split()},
    python_requires=f">={cfg['min_python']}",
    classifiers=[
        f"Development Status :: {statuses[int(cfg['status']) - 1]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        f"Programming Language :: Python :: {cfg['min_python']}",
    ],
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
)
