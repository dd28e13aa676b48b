# DMSR_ADD_FLAGS(VARIABLE, FLAG...)
# Appends each flag that the compiler knows to VARIABLE.
AC_DEFUN([DMSR_ADD_FLAGS], [
	m4_foreach_w([dmsr_one], [$2], [
		AS_VAR_PUSHDEF([dmsr_cache], [dmsr_cv_flag_[]dmsr_one])
		AC_CACHE_CHECK([whether $CC knows dmsr_one], [dmsr_cache], [
			dmsr_saved_CFLAGS=$CFLAGS
			CFLAGS="$CFLAGS -Werror dmsr_one"
			AC_LINK_IFELSE([AC_LANG_PROGRAM([])], [AS_VAR_SET([dmsr_cache], [yes])], [AS_VAR_SET([dmsr_cache], [no])])
			CFLAGS=$dmsr_saved_CFLAGS
		])
		AS_VAR_IF([dmsr_cache], [yes], [AS_VAR_APPEND([$1], [" dmsr_one"])])
		AS_VAR_POPDEF([dmsr_cache])
	])
])
