/* sanitizer: which of the compiler's checkers this build runs under, whatever compiler it is. */
#ifndef DMSR_BASE_SANITIZER_H
#define DMSR_BASE_SANITIZER_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DMSR_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define DMSR_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(DMSR_ASAN)
#define DMSR_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(DMSR_TSAN)
#define DMSR_TSAN 1
#endif

#endif
