# DMSR_PLUGIN(NAME, SUMMARY, DEFAULT)
# --with-plugin-NAME: yes = inside dmsrd, shared = a module in the plugin directory, no = not built. Gives the conditionals
# PLUGIN_NAME (it is built), PLUGIN_NAME_STATIC and PLUGIN_NAME_SHARED, and in config.h WITH_PLUGIN_NAME when it is inside.
AC_DEFUN([DMSR_PLUGIN], [
	m4_pushdef([DMSR_UP], m4_toupper([$1]))
	AC_ARG_WITH([plugin-$1],
		[AS_HELP_STRING([--with-plugin-$1=yes|shared|no], [$2 @<:@$3@:>@])],
		[dmsr_plugin_$1=$withval], [dmsr_plugin_$1=$3])
	AS_CASE([$dmsr_plugin_$1],
		[yes], [AC_DEFINE([WITH_PLUGIN_]DMSR_UP, [1], [Define to 1 when the plugin $1 is inside dmsrd.])],
		[shared|no], [],
		[AC_MSG_ERROR([--with-plugin-$1: want yes, shared or no, not "$dmsr_plugin_$1"])])
	AM_CONDITIONAL([PLUGIN_]DMSR_UP, [test "$dmsr_plugin_$1" != no])
	AM_CONDITIONAL([PLUGIN_]DMSR_UP[_STATIC], [test "$dmsr_plugin_$1" = yes])
	AM_CONDITIONAL([PLUGIN_]DMSR_UP[_SHARED], [test "$dmsr_plugin_$1" = shared])
	m4_popdef([DMSR_UP])
])
