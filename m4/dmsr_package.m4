# DMSR_PACKAGE(VARIABLE-PREFIX, PKG-CONFIG-MODULES, DEBIAN-PACKAGE)
# A library that must be there: PREFIX_CFLAGS and PREFIX_LIBS. What is not there ends configure at DMSR_PACKAGES_END, all at once.
AC_DEFUN([DMSR_PACKAGE], [
	PKG_CHECK_MODULES([$1], [$2], [], [
		AC_MSG_WARN([$2 is missing])
		AS_CASE([" $dmsr_packages "], [*" $3 "*], [], [dmsr_packages="$dmsr_packages $3"])
	])
])
# DMSR_PACKAGES_END
# An end that names the packages which give what is missing.
AC_DEFUN([DMSR_PACKAGES_END], [
	AS_VAR_IF([dmsr_packages], [], [], [AC_MSG_ERROR([libraries are missing: apt-get install$dmsr_packages])])
])
