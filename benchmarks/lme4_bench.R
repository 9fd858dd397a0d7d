# One model, fitted by lme4 as often as asked -> one JSON object on stdout.
# Usage: Rscript lme4_bench.R formula data.csv factor,columns REML|ML repeats
suppressPackageStartupMessages(library(lme4))

arguments <- commandArgs(trailingOnly = TRUE)
formula <- as.formula(arguments[1])
# Factors are text, as in the tables that people read from files.
factors <- strsplit(arguments[3], ",")[[1]]
data <- read.csv(arguments[2], colClasses = setNames(rep("character", length(factors)), factors))
reml <- arguments[4] == "REML"
repeats <- as.integer(arguments[5])

peak_mb <- function() {
  status <- "/proc/self/status"
  if (!file.exists(status)) return(NA)
  line <- grep("^VmHWM:", readLines(status), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}

# Of the thread that fits, in nanoseconds: what a busy machine does not count.
processor <- "/proc/self/schedstat"
cpu_seconds <- function() {
  if (!file.exists(processor)) return(sum(proc.time()[1:2]))
  scan(processor, n = 1, quiet = TRUE) / 1e9
}

before <- peak_mb()
seconds <- numeric(repeats)
for (i in seq_len(repeats)) {
  start <- cpu_seconds()
  fit <- suppressMessages(suppressWarnings(lmer(formula, data, REML = reml)))
  seconds[i] <- cpu_seconds() - start
}
criterion <- if (reml) REMLcrit(fit) else deviance(fit)

number <- function(x) if (is.na(x)) "null" else format(x, digits = 15)
text <- function(x) paste0('"', x, '"')
fields <- c(
  criterion = number(criterion),
  evaluations = number(fit@optinfo$feval),
  seconds = paste0("[", paste(vapply(seconds, number, ""), collapse = ","), "]"),
  peak_mb = number(peak_mb()),
  start_mb = number(before),
  version = text(paste0(
    "R ", getRversion(), ", lme4 ", packageVersion("lme4"), ", Matrix ", packageVersion("Matrix")
  )),
  blas = text(paste0(
    basename(dirname(extSoftVersion()[["BLAS"]])), ", LAPACK: ", basename(La_library())
  ))
)
cat("{", paste0(text(names(fields)), ": ", fields, collapse = ", "), "}\n", sep = "")
