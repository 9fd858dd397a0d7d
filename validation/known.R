# Models with known covariances of levels by lme4, on Z times a root of A -> known.json (data and answers).
# Usage: Rscript known.R

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))

set.seed(20)
animals <- 160
sire <- dam <- rep(NA_integer_, animals)
for (i in 41:animals) {
  older <- seq_len(i - 20)
  sire[i] <- sample(older[older %% 2 == 1], 1)
  dam[i] <- sample(older[older %% 2 == 0], 1)
}
A <- diag(animals)  # by the tabular method: parents come first
for (i in seq_len(animals)) {
  row <- rep(0, i - 1)
  if (i > 1 && !is.na(sire[i])) row <- 0.5 * (A[sire[i], seq_len(i - 1)] + A[dam[i], seq_len(i - 1)])
  A[i, seq_len(i - 1)] <- A[seq_len(i - 1), i] <- row
  A[i, i] <- 1 + if (is.na(sire[i])) 0 else 0.5 * A[sire[i], dam[i]]
}
root <- t(chol(A))
names <- sprintf("a%03d", seq_len(animals))
id <- rep(21:animals, each = 4)  # the first twenty have no rows
age <- rep(1:4, length.out = length(id))
herd <- sample(1:12, length(id), TRUE)
value <- drop(root %*% rnorm(animals))
slope <- drop(root %*% rnorm(animals)) * 0.4
lasting <- rnorm(animals) * 2
d <- data.frame(
  y = round(10 + 0.5 * age + value[id] + slope[id] * age + lasting[id] + rnorm(12)[herd] * 0.7 +
    rnorm(length(id)), 4),
  age = age, herd = sprintf("h%02d", herd), id = names[id], pe = names[id]
)

known <- function(formula, reml = TRUE) {
  parts <- lFormula(formula, d, REML = reml,
                    control = lmerControl(check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore"))
  terms <- parts$reTrms
  for (t in seq_along(terms$Ztlist)) {
    group <- names(terms$cnms)[t]
    if (group != "id") next
    own <- match(levels(terms$flist[[group]]), names)
    L <- t(chol(A[own, own]))
    k <- length(terms$cnms[[t]])
    terms$Ztlist[[t]] <- kronecker(Matrix(t(L), sparse = TRUE), Diagonal(k)) %*% terms$Ztlist[[t]]
  }
  terms$Zt <- do.call(rbind, terms$Ztlist)
  parts$reTrms <- terms
  objective <- do.call(mkLmerDevfun, parts)
  found <- optimizeLmer(objective, optimizer = "bobyqa", control = list(rhoend = 1e-9))
  m <- mkMerMod(environment(objective), found, terms, parts$fr)
  v <- as.data.frame(VarCorr(m))
  list(
    formula = paste(deparse(formula), collapse = ""), reml = reml, criterion = found$fval,
    beta = unname(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m))))), vcov = v$vcov
  )
}

answers <- list(
  known(y ~ age + (1 | id)),
  known(y ~ age + (1 | id) + (1 | herd)),
  known(y ~ age + (1 | id) + (1 | pe)),
  known(y ~ age + (1 + age | id) + (1 | herd)),
  known(y ~ age + (1 | id) + (1 | herd), FALSE)
)
pedigree <- data.frame(id = names, sire = names[sire], dam = names[dam])
write_json(
  list(data = d, pedigree = pedigree, lme4 = as.character(packageVersion("lme4")), models = answers),
  file.path(here, "known.json"), digits = 12, auto_unbox = TRUE, dataframe = "columns", na = "null"
)
