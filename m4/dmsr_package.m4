# DMSR_PACKAGE(VARIABLE-PREFIX, PKG-CONFIG-MODULES, DEBIAN-PACKAGE)
# A library that must be there: PREFIX_CFLAGS and PREFIX_LIBS, or an end that names the package which gives it.
AC_DEFUN([DMSR_PACKAGE], [
	PKG_CHECK_MODULES([$1], [$2], [], [AC_MSG_ERROR([$2 is missing: apt-get install $3])])
])
