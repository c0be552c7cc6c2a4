# shellcheck shell=bash
# The program itself: the Python package in an environment of its own at /opt/onelun, the same for all roles. Sourced by install.sh.
#
# It lies outside remotes, because `onehost sync` copies that tree to every host and follows links. An environment is built aside
# and put in place by a rename, so that what runs keeps running, and an install that is cut off leaves the earlier release whole.

PREFIX=/opt/onelun
COMMAND=/usr/bin/onelun

# put MODE FILE DEST: a copy of FILE as DEST, by a rename, unless it is the same already.
put() {
	if cmp -s "$2" "$3" && [ "$(stat -c %a "$3")" = "${1#0}" ]; then return; fi
	mkdir -p "$(dirname "$3")"
	cp "$2" "$3.new"
	chmod "$1" "$3.new"
	mv -fT "$3.new" "$3"
	# Who wants to know whether there was anything to do empties it before.
	# shellcheck disable=SC2034
	PUT=1
}

# requirements: the Python packages that setup.cfg names, one a line.
requirements() {
	sed -n '/^install_requires =/,/^\[/ { /^ *#/d; s/^ \{1,\}\([A-Za-z].*\)/\1/p }' "$ROOT/setup.cfg"
}

# checksum FILE...: of names and contents.
checksum() { cat "$@" | cksum; }

tree_files() { (cd "$ROOT/lib" && find onelun -type f ! -name '*.pyc' ! -path '*/__pycache__/*' | LC_ALL=C sort | sed "s#^#$ROOT/lib/#"); }

# Whether this call changed the program.
PROGRAM_CHANGED=''

install_program() {
	local python needs made files new=$BASE$PREFIX/.new-venv
	python=$(base_python)
	needs="$("$python" -V) $(requirements | cksum)"
	mapfile -t files < <(tree_files)
	made=$(checksum "${files[@]}")
	mkdir -p "$BASE$PREFIX"
	chmod 755 "$BASE$PREFIX"
	if ! grep -qxF "$needs" "$BASE$PREFIX/venv/.needs" 2>/dev/null; then
		make_environment "$python" "$new"
		printf '%s\n' "$needs" >"$new/.needs"
	elif ! grep -qxF "$made" "$BASE$PREFIX/venv/.made-from" 2>/dev/null; then
		rm -rf "$new"
		cp -a "$BASE$PREFIX/venv" "$new"
	fi
	if [ -d "$new" ]; then
		put_package "$python" "$new"
		printf '%s\n' "$made" >"$new/.made-from"
		rm -rf "$BASE$PREFIX/.old-venv"
		if [ -d "$BASE$PREFIX/venv" ]; then mv -T "$BASE$PREFIX/venv" "$BASE$PREFIX/.old-venv"; fi
		mv -T "$new" "$BASE$PREFIX/venv"
		# shellcheck disable=SC2034 # restart_running reads it
		PROGRAM_CHANGED=1
	fi
	rm -rf "$BASE$PREFIX/.old-venv"
	mkdir -p "$(dirname "$BASE$COMMAND")"
	if [ "$(readlink "$BASE$COMMAND")" != "$PREFIX/venv/bin/onelun" ]; then ln -sfn "$PREFIX/venv/bin/onelun" "$BASE$COMMAND"; fi
	put_scripts "$BASE$PREFIX/remotes"
}

# compile PYTHON TREE OPTION...: all modules below TREE. A package's files bear one time (SOURCE_DATE_EPOCH), and the compiled ones theirs.
compile() {
	local python=$1 tree=$2
	shift 2
	if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; fi
	"$python" -I -m compileall -q --invalidation-mode timestamp "$@" "$tree" || fail "cannot compile $tree"
}

# make_environment PYTHON DIR: what onelun needs, without onelun.
make_environment() {
	local log names
	log=$(mktemp)
	rm -rf "$2"
	say "installing Python packages into $PREFIX/venv"
	"$1" -m venv "$2" >"$log" 2>&1 || fail "cannot make $2: $(tail -n 2 "$log") (apt-get install python3-venv)"
	mapfile -t names < <(requirements)
	"$2/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile -q "${names[@]}" >"$log" 2>&1 ||
		fail "pip could not install what onelun needs ($log): $(grep -E '^ *ERROR' "$log" | tail -n 2)"
	# What installs packages has no place in an environment that only changes as a whole.
	"$2/bin/python" -m pip uninstall --disable-pip-version-check -y -q setuptools pip >"$log" 2>&1 || fail "$(tail -n 2 "$log")"
	find "$2/bin" -mindepth 1 ! -name 'python*' -delete
	sed -i '/^\.\.\/\.\.\/\.\.\/bin\//d' "$2"/lib/python3.*/site-packages/*.dist-info/RECORD
	rm -f "$log"
}

# put_package PYTHON DIR: onelun into the environment DIR, compiled.
put_package() {
	local site
	site=$(echo "$2"/lib/python3.*/site-packages)
	rm -rf "$site/onelun"
	tree_files | sed "s#^$ROOT/lib/##" | tar -C "$ROOT/lib" -c --owner=0 --group=0 --mode=u=rwX,go=rX -f - -T - | tar -C "$site" -x -f -
	printf '#!%s/venv/bin/python -I\nimport sys\n\nfrom onelun.cli.main import main\n\nsys.exit(main())\n' "$PREFIX" >"$2/bin/onelun"
	chmod 755 "$2/bin/onelun"
	printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' \
		"$("$1" -c 'import platform; print(platform.python_version())')" >"$2/pyvenv.cfg"
	compile "$2/bin/python" "$site" -s "$2" -p "$PREFIX/venv"
	chmod -R u=rwX,go=rX "$2"
}

# put_scripts DIR: what oned executes, as remotes has it: DIR/datastore/onelun and DIR/tm/onelun; compiled, so that starting one
# costs no more than it must. What an earlier release had and this one has not goes.
put_scripts() {
	local room file name
	for room in datastore tm; do
		for file in "$ROOT/$room/onelun"/*; do
			if [ ! -f "$file" ]; then continue; fi
			if [ -x "$file" ]; then put 755 "$file" "$1/$room/onelun/${file##*/}"; else put 644 "$file" "$1/$room/onelun/${file##*/}"; fi
		done
		for file in "$1/$room/onelun"/*; do
			name=${file##*/}
			if [ "$name" != __pycache__ ] && [ ! -e "$ROOT/$room/onelun/$name" ]; then rm -rf "$file"; fi
		done
		chmod 755 "$1/$room/onelun"
		if ! compgen -G "$1/$room/onelun/*.py" >/dev/null; then continue; fi
		# By the interpreter that the scripts name: each has a form of its own.
		compile /usr/bin/python3 "$1/$room/onelun" ${BASE:+-s "$BASE"}
	done
}

# uninstall_program: when the last role is gone.
uninstall_program() {
	if compgen -G "$BASE$PREFIX/roles/*" >/dev/null; then return; fi
	rm -rf "$BASE${PREFIX:?}"
	if [ "$(readlink "$BASE$COMMAND" 2>/dev/null)" = "$PREFIX/venv/bin/onelun" ]; then rm -f "$BASE$COMMAND"; fi
}
