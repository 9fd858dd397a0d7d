# One generalized model, fitted as often as asked -> one JSON object on stdout.
# Usage: Rscript generalized.R glmer|glmer.nb|glmmTMB formula data.csv family offset repeats
arguments <- commandArgs(trailingOnly = TRUE)
program <- arguments[1]
suppressPackageStartupMessages(library(if (program == "glmmTMB") "glmmTMB" else "lme4", character.only = TRUE))
formula <- as.formula(arguments[2])
data <- read.csv(arguments[3], stringsAsFactors = TRUE)
offset <- if (arguments[5] == "") rep(0, nrow(data)) else eval(str2lang(arguments[5]), data)
data$.offset <- offset
repeats <- as.integer(arguments[6])
family <- switch(arguments[4], binomial = binomial(), poisson = poisson(), gamma = Gamma("log"),
                 negative_binomial = if (program == "glmmTMB") nbinom2())
fit_once <- function() switch(program,
  glmmTMB = glmmTMB(formula, data, family = family, offset = .offset),
  glmer = if (arguments[4] == "negative_binomial") glmer.nb(formula, data, offset = .offset)
          else glmer(formula, data, family = family, offset = .offset))
seconds <- numeric(repeats)
for (i in seq_len(repeats)) {
  start <- sum(proc.time()[1:2])
  fit <- suppressMessages(suppressWarnings(fit_once()))
  seconds[i] <- sum(proc.time()[1:2]) - start
}
cat(sprintf('{"criterion": %.10f, "seconds": [%s], "evaluations": %s, "version": "%s %s"}\n',
            -2 * as.numeric(logLik(fit)), paste(seconds, collapse = ", "),
            if (program == "glmmTMB") "null" else format(fit@optinfo$feval), program,
            packageVersion(if (program == "glmmTMB") "glmmTMB" else "lme4")))
