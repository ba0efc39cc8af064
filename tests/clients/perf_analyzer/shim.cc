// What perf_analyzer's binary asks of a newer C and C++ library than this machine has, said in terms of what it has. Preloaded; see
// scripts/perf-analyzer.sh.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream> // makes the streams ready before main, which newer libraries do by themselves
#include <string>

extern "C" {
long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) { return strtoll(text, end, base); }
unsigned long __isoc23_strtoul(const char *text, char **end, int base) { return strtoul(text, end, base); }
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) { return strtoull(text, end, base); }
int __isoc23_sscanf(const char *text, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    int read = vsscanf(text, format, rest);
    va_end(rest);
    return read;
}
// std::ios_base_library_init()
void _ZSt21ios_base_library_initv() {}
// std::string::_M_replace_cold: puts `added` bytes, which may lie within the string itself, in the place of `removed`.
void _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm(
    void *, char *place, size_t removed, const char *from, size_t added, size_t after) {
    std::string copy(from, added);
    if (after > 0 && removed != added) memmove(place + added, place + removed, after);
    memcpy(place, copy.data(), added);
}
}
