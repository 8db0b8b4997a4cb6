# pg_narinfo: Nix and Guix binary caches served by PostgreSQL
#
#   make run            a private cluster with a small real cache in it
#   make stop           stops it          make clean-run   removes it
#   make test           every test        make test T=010  those matching 010
#   make style          the rules of the house    make indent   applies them
#   make fuzz           the parsers under libFuzzer, FUZZ_SECONDS=60 each
#   make guix-test      the real guix against what we sign, in chroots
#   make deps           installs the Debian packages that all this needs
#
# and, as with every extension, with any PG_CONFIG:
#
#   make && make install && make installcheck
#
# Each room of src/ holds its C and the SQL that declares it; the SQL is
# joined into the extension's script in the order of ROOMS, a room's main
# part, which has its name, before its others.

EXTENSION = pg_narinfo
MODULE_big = pg_narinfo
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" \
	$(EXTENSION).control)

ROOMS = types cache graph nar sites stats fetch serve worker
SQL_PARTS = $(foreach room,$(ROOMS),$(wildcard src/$(room)/$(room).sql) \
	$(sort $(filter-out src/$(room)/$(room).sql,$(wildcard src/$(room)/*.sql))))
SCRIPT := $(EXTENSION)--$(EXTVERSION).sql

DATA = $(wildcard $(EXTENSION)--*--*.sql)
DATA_built = $(SCRIPT)

C_FILES = $(wildcard src/*.c src/*/*.c)
C_OBJS = $(C_FILES:.c=.o)
OBJS = $(C_OBJS) $(LLHTTP_OBJS)
EXTRA_CLEAN = build $(C_FILES:.c=.d)

# Regression tests: the types before what is made of them.
REGRESS_FIRST = amvalidate store_hash store_path nar_hash narinfo types cache
REGRESS_FOUND = $(sort $(basename $(notdir $(wildcard sql/*.sql))))
REGRESS := $(strip $(filter $(REGRESS_FOUND),$(REGRESS_FIRST)) \
	$(filter-out $(REGRESS_FIRST),$(REGRESS_FOUND)))
ISOLATION := $(sort $(basename $(notdir $(wildcard test/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test

# ---- llhttp, the HTTP parser: a library where the system has one (Debian
# ---- 13), else the C sources that Debian 12's node-llhttp ships.

LLHTTP_SOURCES ?= /usr/share/llhttp
LLHTTP_HEADERS ?= /usr/share/include/llhttp

ifeq ($(shell pkg-config --exists libllhttp 2>/dev/null && echo yes),yes)
LLHTTP_CPPFLAGS := $(shell pkg-config --cflags libllhttp)
LLHTTP_LIBS := $(shell pkg-config --libs libllhttp)
LLHTTP_OBJS =
else
LLHTTP_CPPFLAGS = -isystem $(LLHTTP_HEADERS)
LLHTTP_LIBS =
LLHTTP_OBJS = $(addprefix build/llhttp/,api.o http.o llhttp.o)
endif

# What Nix and Guix sign with; src/base has it.
CRYPTO_LIBS = -lsodium -lgcrypt

# The program that looks into NARs, apart from the server: src/nar/checker.
CHECKER = build/pg_narinfo_check
CHECKER_C = $(wildcard src/nar/checker/*.c) \
	$(addprefix src/base/,hash.c nar.c nix32.c text.c)
CHECKER_OBJS = $(CHECKER_C:src/%.c=build/checker/%.o)
CHECKER_LIBS = -larchive -lbrotlidec -lgcrypt

# ---- flags

# Our own code is compiled with every warning; PostgreSQL's headers are not
# ours to judge, hence -isystem (which also wins over PGXS's -I of the same
# directory).  -Bsymbolic: PostgreSQL loads modules RTLD_GLOBAL, and a call of
# ours must not end in a function of the same name in somebody else's.
PG_CPPFLAGS = -Isrc -isystem $(includedir_server) \
	-isystem $(libpq_srcdir) $(LLHTTP_CPPFLAGS)
PG_CFLAGS = -std=gnu11 -Wall -Wextra
SHLIB_LINK = -Wl,-Bsymbolic $(LLHTTP_LIBS) $(CRYPTO_LIBS) -lz -lcurl $(libpq)

# No bitcode for PostgreSQL's JIT: it would need clang, and gains nothing here.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

.DEFAULT_GOAL := all

ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
# A machine that has no PostgreSQL yet: only the targets below work.
all install installcheck clean uninstall:
	@echo "$(PG_CONFIG) leads to no PGXS: try 'make deps', or set PG_CONFIG" >&2
	@false
endif

# ---- the extension

# Objects depend on the flags they were compiled with.  WERROR=yes stops at a
# warning; it changes no object, so leaving it out later compiles nothing again.
FLAGS := $(CC) $(CFLAGS) $(CPPFLAGS)
STRICT := $(if $(filter yes,$(WERROR)),-Werror)

build/flags: FORCE
	@mkdir -p $(@D)
	@grep -qsxF -e '$(FLAGS) -Werror' $(if $(STRICT),,-e '$(FLAGS) ') $@ || \
		echo '$(FLAGS) $(STRICT)' >$@

$(C_OBJS): %.o: %.c build/flags
	$(CC) $(CFLAGS) $(STRICT) $(CPPFLAGS) -MMD -MP -MF $*.d -c -o $@ $<

-include $(C_FILES:.c=.d)

$(CHECKER_OBJS): build/checker/%.o: src/%.c build/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(STRICT) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -fPIE \
		-Isrc -MMD -MP -c -o $@ $<

-include $(CHECKER_OBJS:.o=.d)

$(CHECKER): $(CHECKER_OBJS)
	$(CC) $(CFLAGS) -pie -Wl,-z,relro,-z,now -o $@ $^ $(CHECKER_LIBS)

ifneq ($(wildcard $(PGXS)),)
all: $(CHECKER)

# Beside the library, where nar/check.c looks for it.
install: install-checker
install-checker: $(CHECKER) installdirs
	$(INSTALL_PROGRAM) $(CHECKER) '$(DESTDIR)$(pkglibdir)/'

uninstall: uninstall-checker
uninstall-checker:
	rm -f '$(DESTDIR)$(pkglibdir)/$(notdir $(CHECKER))'
endif

build/llhttp/%.o: $(LLHTTP_SOURCES)/%.c
	@mkdir -p $(@D)
	$(CC) -O2 -g -fPIC -fvisibility=hidden -w -I$(LLHTTP_HEADERS) -c -o $@ $<

$(LLHTTP_SOURCES)/%.c:
	@echo "no $@: try 'make deps'" >&2
	@false

# The list of parts is a prerequisite too: a room that came or went counts.
build/sql-parts: FORCE
	@mkdir -p $(@D)
	@echo '$(SQL_PARTS)' | cmp -s - $@ || echo '$(SQL_PARTS)' >$@

$(SCRIPT): $(SQL_PARTS) build/sql-parts $(EXTENSION).control
	@{ printf '%s\n' '/* $(SCRIPT): joined from src, not to be edited */' '' \
	'-- complain if script is sourced in psql, not by CREATE EXTENSION' \
	'\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	for part in $(SQL_PARTS); do \
		printf '\n-- ---- %s\n\n' $$part; cat $$part; \
	done; } >$@.new
	@mv $@.new $@

# ---- programs of src/base and src/http alone: unit tests and fuzz targets

PLAIN_FLAGS = -std=gnu11 -D_GNU_SOURCE -Isrc $(LLHTTP_CPPFLAGS) -g -O1 \
	-fno-omit-frame-pointer -Wall -Wextra -Werror
UNIT_FLAGS = $(PLAIN_FLAGS) -fsanitize=address,undefined \
	-fno-sanitize-recover=all
FUZZ_FLAGS = $(PLAIN_FLAGS) -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=all
CLANG ?= clang

BASE_C = $(wildcard src/base/*.c)
HTTP_C = $(wildcard src/http/*.c)
PLAIN_H = $(wildcard src/base/*.h src/http/*.h test/unit/*.h test/fuzz/*.h)

UNIT = $(patsubst test/unit/%.c,build/unit/%,$(wildcard test/unit/*.c))
FUZZ = $(patsubst test/fuzz/%.c,build/fuzz/%,$(wildcard test/fuzz/fuzz_*.c))

# Those of src/http have the room in their name.
$(filter build/unit/http% build/fuzz/fuzz_http%,$(UNIT) $(FUZZ)): \
	$(HTTP_C) $(LLHTTP_OBJS)

$(UNIT): build/unit/%: test/unit/%.c $(BASE_C) $(PLAIN_H)
	@mkdir -p $(@D)
	$(CC) $(UNIT_FLAGS) -o $@ $(filter %.c %.o,$^) $(LLHTTP_LIBS) \
		$(CRYPTO_LIBS)

$(FUZZ): build/fuzz/%: test/fuzz/%.c $(BASE_C) $(PLAIN_H)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_FLAGS) -o $@ $(filter %.c %.o,$^) $(LLHTTP_LIBS) \
		$(CRYPTO_LIBS)

unit-programs: $(UNIT)
fuzz-programs: $(FUZZ)

# ---- the rest is done by scripts; each says in its head what it does

export PG_CONFIG CLANG

deps:
	@tools/deps run test

run:
	@+tools/run start

stop:
	@tools/run stop

clean-run:
	@tools/run remove

test:
	@+test/run $(if $(T),'$(T)')

style:
	@tools/style

indent:
	@tools/indent

fuzz:
	@+tools/fuzz $(if $(T),'$(T)')

# Those that come later are targets once their scripts are there.
SCRIPTED = $(foreach name,bench stress guix-test valgrind,$(if $(wildcard tools/$(name)),$(name)))
$(SCRIPTED):
	@+tools/$@

# For the scripts: what a variable of this file holds.
print-%:
	@echo $($*)

FORCE:
.PHONY: FORCE all install install-checker installcheck clean uninstall \
	uninstall-checker deps run stop \
	clean-run test style indent fuzz unit-programs fuzz-programs $(SCRIPTED)
