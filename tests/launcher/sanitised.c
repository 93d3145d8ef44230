// SPDX-License-Identifier: Apache-2.0
// The launcher has no heap, so there are no leaks to be searched for at each of its ends.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }
