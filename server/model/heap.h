#ifndef CUPOLA_SERVER_MODEL_HEAP_H_
#define CUPOLA_SERVER_MODEL_HEAP_H_

namespace cupola::model {

// Gives the heap's free pages back to the system, whether the program is linked
// with jemalloc or uses glibc's: for the end of a load, after which many
// megabytes that were read and converted lie unused. Takes milliseconds.
void ReturnFreeMemory();

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_HEAP_H_
